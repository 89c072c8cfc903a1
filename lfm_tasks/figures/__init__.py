"""lfm_tasks/figures."""
