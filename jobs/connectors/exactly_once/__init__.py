"""The sink that writes each record into Kafka topics exactly once, with a ledger topic; its way in is `sink`."""
