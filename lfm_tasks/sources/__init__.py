"""Where activations come from: files people have, and models that are recorded."""
