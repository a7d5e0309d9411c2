"""Handles Kafka topics: source and sink, offsets, consumers, brokers and what topics take."""
