"""The command line: ``lfm-atlas``."""
