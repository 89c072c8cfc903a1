"""Clusters of Dask workers: one module for each kind, and the only one that imports its library.

To add a kind: its settings in ``catalog/cluster.py``, a module here with ``open_cluster(catalog)``, a row in
``opening.LIBRARIES``, and its extra in ``pyproject.toml``.
"""
