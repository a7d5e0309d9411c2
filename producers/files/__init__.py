"""Publishes any CSV, JSON, Parquet or Avro file as events: opens, types and converts it; keeps the rejects."""
