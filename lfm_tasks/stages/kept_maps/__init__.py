"""lfm_tasks/stages/stored_maps."""
