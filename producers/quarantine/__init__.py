"""Finds rejected records, looks into them, sends them back to their topics once, or has a work queue resolve them."""
