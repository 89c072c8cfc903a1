"""Storage: committed, content-addressed units and the published atlas."""
