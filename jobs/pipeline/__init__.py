"""Gives a job what it works with, and runs it: sources, outputs, validation, checkpoints, queries."""
