"""What a job works with, and how it is run: sources, outputs, validation, checkpoints, queries."""
