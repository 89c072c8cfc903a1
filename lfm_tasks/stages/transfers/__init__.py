"""lfm_tasks/stages/transfers."""
