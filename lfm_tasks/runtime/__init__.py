"""lfm_tasks/runtime."""
