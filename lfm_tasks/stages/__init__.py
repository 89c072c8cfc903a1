"""The stages of a run, in order: validate, activations, bases, scores, atlas, report."""
