"""The state of one run: settings, workers, counts, failures, its log, the cost model."""
