CREATE TABLE bids (
  auction BIGINT NOT NULL,
  bid_at TIMESTAMP(3) NOT NULL,
  WATERMARK FOR bid_at AS bid_at - INTERVAL '$lateness_s' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = '$topic',
  'properties.bootstrap.servers' = '$servers',
  'properties.group.id' = '$name',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = '$registry'
);

CREATE TABLE bid_counts (
  auction BIGINT NOT NULL,
  window_start TIMESTAMP(3) NOT NULL,
  bids BIGINT NOT NULL
) WITH (
  'connector' = 'kafka',
  'topic' = '$results',
  'properties.bootstrap.servers' = '$servers',
  'properties.linger.ms' = '50',
  'properties.batch.size' = '1000000',
  'properties.compression.type' = 'lz4',
  'key.format' = 'raw',
  'key.fields' = 'auction',
  'value.format' = 'avro'$delivery
);

INSERT INTO bid_counts
SELECT auction, window_start, COUNT(*) AS bids
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(bid_at), INTERVAL '$window_s' SECOND))
GROUP BY window_start, window_end, auction
