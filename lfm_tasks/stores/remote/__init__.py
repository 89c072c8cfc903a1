"""lfm_tasks/stores/remote."""
