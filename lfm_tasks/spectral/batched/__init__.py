"""lfm_tasks/spectral/batched."""
