"""Runs any range of the past again beside the live tables, shows that the result is right, and swaps it in."""
