"""Checks and types log lines by the Elastic Common Schema, and keeps their index in OpenSearch up to date."""
