"""lfm_tasks/sources/files."""
