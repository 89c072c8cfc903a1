"""lfm_tasks/statistics."""
