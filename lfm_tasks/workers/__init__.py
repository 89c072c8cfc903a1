"""Who computes: this process, local Dask, clusters."""
