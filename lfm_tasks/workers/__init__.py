"""Workers of a run: this process, local Dask, clusters."""
