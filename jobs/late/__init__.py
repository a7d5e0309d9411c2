"""Rows that came too late for a watermark: found, and listed with the records they came from."""
