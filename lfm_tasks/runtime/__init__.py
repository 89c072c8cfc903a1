"""What one run carries: settings, workers, counts, failures, its log, the cost model."""
