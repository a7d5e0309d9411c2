"""Keeps tables, checkpoints and ledgers small while jobs run: see docs/maintenance.md."""
