"""The paper's experiments, each made of the project's own stages: derived zoos, the pipeline, a conclusion."""
