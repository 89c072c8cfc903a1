"""lfm_tasks/stages/inventory."""
