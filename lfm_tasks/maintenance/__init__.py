"""lfm_tasks/maintenance."""
