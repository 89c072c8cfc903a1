"""lfm_tasks/stages/bases."""
