"""Publishes the events of an auction house, by the model of the Nexmark benchmark, and of a bank beside it."""
