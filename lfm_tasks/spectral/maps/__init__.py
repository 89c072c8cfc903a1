"""lfm_tasks/spectral/maps."""
