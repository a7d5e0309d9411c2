"""Holds the job `ingest`, which writes every record of a topic into bronze, and into silver or quarantine."""
