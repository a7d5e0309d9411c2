import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.LongAdder;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;

/**
 * The question in Kafka Streams' DSL: QUESTION.json. The topic is keyed by auction, so nothing is shuffled.
 *
 * Final counts by `suppress`, as the DSL guide's "Window Final Results" has it; threads, cache and stores by "Configuring
 * a Streams Application" and "Memory Management". It ends once every record has been counted.
 */
public final class KafkaStreamsCounts {
    private static final int HEADER_LENGTH = 5;
    private static final LongAdder counted = new LongAdder();
    private static final AtomicBoolean begun = new AtomicBoolean();

    public static void main(String[] arguments) throws Exception {
        JsonNode question = new ObjectMapper().readTree(new File(arguments[0]));
        Duration window = Duration.ofMillis(question.get("window_ms").asLong());
        Duration lateness = Duration.ofMillis(question.get("lateness_ms").asLong());
        Schema written = new Schema.Parser().parse(question.get("schema").asText());
        Schema results = new Schema.Parser().parse(question.get("result_schema").asText());
        Serializer<GenericRecord> serializer = serializer(results, question.get("result_id").asInt());
        Deserializer<Long> deserializer = bidAt(written);

        StreamsBuilder builder = new StreamsBuilder();
        builder
            .stream(question.get("topic").asText(),
                Consumed.with(Serdes.String(), Serdes.serdeFrom(Serdes.Long().serializer(), deserializer))
                    .withTimestampExtractor((record, partitionTime) -> (Long) record.value()))
            .peek((auction, at) -> counted.increment())
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Long()))
            .windowedBy(TimeWindows.ofSizeAndGrace(window, lateness))
            .count()
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .map((key, bids) -> {
                GenericRecord result = new GenericData.Record(results);
                result.put("auction", Long.parseLong(key.key()));
                result.put("window_start", key.window().start());
                result.put("bids", bids);
                return KeyValue.pair(key.key(), result);
            })
            .to(question.get("results").asText(),
                Produced.with(Serdes.String(), Serdes.serdeFrom(serializer, (topic, bytes) -> null)));

        KafkaStreams streams = new KafkaStreams(builder.build(), properties(question));
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        long records = question.get("records").asLong();
        while (counted.sum() < records) {
            Thread.sleep(20);
        }
        if (!streams.close(Duration.ofSeconds(120))) {
            System.exit(1);
        }
    }

    private static Properties properties(JsonNode question) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, question.get("name").asText());
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, question.get("servers").asText());
        properties.put(StreamsConfig.STATE_DIR_CONFIG, question.get("folder").asText());
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        properties.put(
            StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 20_000);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 1 << 20);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 50);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 50);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1_000_000);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        return properties;
    }

    /** Decodes a framed bid by a reader schema of what is used, its time; the auction is the record's key. */
    private static Deserializer<Long> bidAt(Schema written) {
        Schema.Field at = written.getField("bid_at");
        Schema narrow = Schema.createRecord(written.getName(), null, written.getNamespace(), false);
        narrow.setFields(java.util.List.of(new Schema.Field(at.name(), at.schema())));
        ThreadLocal<GenericDatumReader<GenericRecord>> readers =
            ThreadLocal.withInitial(() -> new GenericDatumReader<>(written, narrow));
        ThreadLocal<BinaryDecoder> decoders = new ThreadLocal<>();
        return (topic, bytes) -> {
            if (begun.compareAndSet(false, true)) {
                System.out.printf(Locale.ROOT, "first-record %.3f%n", System.currentTimeMillis() / 1000.0);
            }
            try {
                BinaryDecoder decoder = DecoderFactory.get()
                    .binaryDecoder(bytes, HEADER_LENGTH, bytes.length - HEADER_LENGTH, decoders.get());
                decoders.set(decoder);
                return (Long) readers.get().read(null, decoder).get(at.name());
            } catch (IOException failure) {
                throw new UncheckedIOException(failure);
            }
        };
    }

    private static Serializer<GenericRecord> serializer(Schema schema, int id) {
        byte[] header = ByteBuffer.allocate(HEADER_LENGTH).put((byte) 0).putInt(id).array();
        GenericDatumWriter<GenericRecord> writer = new GenericDatumWriter<>(schema);
        return (topic, record) -> {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            bytes.writeBytes(header);
            try {
                BinaryEncoder encoder = EncoderFactory.get().directBinaryEncoder(bytes, null);
                writer.write(record, encoder);
                encoder.flush();
            } catch (IOException failure) {
                throw new UncheckedIOException(failure);
            }
            return bytes.toByteArray();
        };
    }
}
