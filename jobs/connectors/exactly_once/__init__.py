"""Writes each record into Kafka topics exactly once, with a ledger topic; the way in is `sink`."""
