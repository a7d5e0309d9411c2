"""Avro in the Confluent framing, decoded, checked and encoded on the JVM."""
