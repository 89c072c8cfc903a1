"""Stage collection: the maps of a dataset made consistent, one basis for all its spaces."""
