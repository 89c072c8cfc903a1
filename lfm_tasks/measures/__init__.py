"""The similarity measures that stand beside LFM, and the statistics of every score."""
