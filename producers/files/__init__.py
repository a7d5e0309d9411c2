"""Any CSV, JSON, Parquet or Avro file as events: opened, typed, converted, published; rejects are kept."""
