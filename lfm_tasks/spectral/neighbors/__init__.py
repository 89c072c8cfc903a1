"""lfm_tasks/spectral/neighbors."""
