"""Holds what operators run beside jobs: replay, coverage, maintenance and the checkpoint doctor."""
