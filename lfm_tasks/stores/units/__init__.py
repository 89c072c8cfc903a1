"""lfm_tasks/stores/units."""
