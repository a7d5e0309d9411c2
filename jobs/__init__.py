"""Spark jobs: one file per question, beside the operations a pipeline needs."""
