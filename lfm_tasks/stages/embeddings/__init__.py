"""lfm_tasks/stages/embeddings."""
