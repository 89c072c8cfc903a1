"""The paper's experiments: each prepares zoos, runs the pipeline on them and analyzes their atlases."""
