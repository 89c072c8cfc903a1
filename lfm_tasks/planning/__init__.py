"""lfm_tasks/planning."""
