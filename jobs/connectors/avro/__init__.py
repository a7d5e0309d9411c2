"""Decodes, checks and encodes Avro in the Confluent framing on the JVM."""
