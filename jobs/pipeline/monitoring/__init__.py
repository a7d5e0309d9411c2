"""Records what queries do while they run: a row for each micro-batch, metrics for Prometheus, and their lag."""
