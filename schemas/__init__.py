"""Holds the contracts of the topics, the registry of their versions, and the codec. Imports no Spark."""
