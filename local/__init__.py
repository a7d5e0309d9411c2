"""Lets all of Tidemark run on one machine: jars, broker, topics, checks and the `tidemark` command."""
