"""Stage publish (``atlas`` in logs): the atlas as a folder of arrays, tables and a report."""
