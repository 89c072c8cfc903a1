"""lfm_tasks/stores/atlas."""
