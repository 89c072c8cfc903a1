"""lfm_tasks/stages/collection."""
