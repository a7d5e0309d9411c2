"""Connects to outside systems: one module per system, source and sink together."""
