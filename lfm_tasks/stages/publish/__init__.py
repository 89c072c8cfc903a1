"""lfm_tasks/stages/publish."""
