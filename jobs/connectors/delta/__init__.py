"""Handles Delta tables: exactly-once writes, their log, their schema and their upkeep."""
