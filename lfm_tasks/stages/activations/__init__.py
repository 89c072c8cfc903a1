"""lfm_tasks/stages/activations."""
