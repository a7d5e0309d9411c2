"""The ways into a topic: the publisher, its exactly-once option, pace and progress."""
