"""What lies where: committed, content-addressed units and the published atlas."""
