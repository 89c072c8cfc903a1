"""lfm_tasks/workers."""
