"""Stage publish: the atlas as a folder of arrays, tables and a report."""
