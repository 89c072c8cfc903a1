"""Stage across datasets: maps between spaces of two datasets, fitted without ids, and their scores."""
