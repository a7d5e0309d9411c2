"""What running queries tell about themselves: a row for each micro-batch, metrics for Prometheus, and their lag."""
