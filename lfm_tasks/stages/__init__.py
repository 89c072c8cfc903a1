"""The stages of a run: inventory, activations, bases, scores, collection, kept maps, transfers, embeddings, publish."""
