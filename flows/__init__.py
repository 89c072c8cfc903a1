"""Prefect flows and the command line of lfm-atlas."""
