"""Rows that came too late for a watermark: detected, and kept in a table with the records they came from."""
