"""Detects rows that came too late for a watermark, and keeps them in a table with the records they came from."""
