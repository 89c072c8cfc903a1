"""lfm_tasks/spectral/bases."""
