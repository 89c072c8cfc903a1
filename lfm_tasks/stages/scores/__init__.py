"""lfm_tasks/stages/scores."""
