"""Publishes into topics: the publisher, its exactly-once option, pace and progress."""
