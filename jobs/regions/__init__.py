"""Runs jobs over several regions, each with a cluster of its own and copies of the others' topics."""
