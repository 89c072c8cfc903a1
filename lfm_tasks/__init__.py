"""Latent Functional Maps for whole model zoos: kernels, sources, stores and stages."""

__version__ = "0.1.0"
