"""Rejected records: found, looked into, sent back to their topics once and only once, or resolved from a work queue."""
