"""The job `ingest`: every record of a topic into bronze, and into silver or quarantine."""
