"""lfm_tasks/spectral/transfer."""
