"""Fills the topics: pure generators of events, and the one publisher behind them. Imports no Spark."""
