"""Graphs, spectral bases and functional maps: arrays in, arrays out."""
