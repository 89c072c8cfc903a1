"""Stage embeddings: t-SNE and linear probes of chosen spaces."""
