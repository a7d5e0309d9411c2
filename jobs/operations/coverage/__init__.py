"""Finds which offsets of which topics each table and output topic holds, and whether that is all of them, each once."""
