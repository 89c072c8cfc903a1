"""lfm_tasks/sources/networks."""
