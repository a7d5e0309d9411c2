"""The sink that writes each record into Kafka topics exactly once; its way in is `ledger.sink`."""
