"""Where Dask's workers come from, a module a kind of cluster: each the one door to the library that starts them."""
