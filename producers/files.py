"""Any CSV, JSON-lines, Parquet or Avro file into any topic.

A row becomes a record, or a reject: what does not fit the schema exactly, lacks its key or its event time, or is
too large for the topic is written down with file, line and reason, and the rest goes on. Every row is counted.
"""

from pathlib import Path

from confluent_kafka.admin import AdminClient

from conf import state_dir
from conf.errors import TidemarkError
from conf.settings import Settings
from conf.topics import Topic, load_topics
from producers.delivery import Report
from producers.exactly_once import told
from producers.facts import file_facts
from producers.file_rows import Codec, FileRequest, FileRows, RowReader
from producers.file_schema import find_schema, infer_and_write
from producers.inputs import open_inputs, require_files
from producers.interrupt import Interrupt
from producers.preflight import create_topic
from producers.progress import Progress
from producers.publisher import Publisher, connection_config
from producers.rejects import Rejects, is_there, numbered
from producers.transactional import TransactionalPublisher
from schemas.codec import Encoder
from schemas.contracts import FOLDER
from schemas.registries import open_registry
from schemas.subjects import subject_for


def infer_only(request: FileRequest, folder: Path = FOLDER) -> None:
    """Infer the schema, and write it to the place named, or to `<topic>.avsc` in `folder`."""
    path = request.schema or folder / f"{request.topic}.avsc"
    if path.exists():
        raise TidemarkError("SCHEMA_EXISTS", f"{path} is there already", "remove it to infer the schema anew")
    infer_and_write(request.topic, open_inputs(request.paths, request.opening), request.reading.nulls, path)


def publish_files(settings: Settings, request: FileRequest, interrupt: Interrupt, folder: Path = FOLDER) -> Report:
    """Publish every row that fits, and print the accounts of rows.

    Raises:
        TidemarkError: of the broker (NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC), the files, the schema, the registry,
            and UNKNOWN_FIELD or UNFIT_FIELD; all before anything is sent. What comes later is the report's cause.
    """
    require_files(request.paths)
    declared = load_topics().get(request.topic)
    if request.create_partitions:
        _create(settings, declared or Topic(request.topic, request.create_partitions, key=""))
    publisher = _publisher(settings, request)
    text = find_schema(request.topic, request.schema, declared, folder)
    if text is None:
        inputs = open_inputs(request.paths, request.opening)
        text = infer_and_write(request.topic, inputs, request.reading.nulls, folder / f"{request.topic}.avsc")
    reader = RowReader(text, request)
    schema_id = open_registry(settings.registry).register(subject_for(request.topic, text, declared), text)
    codec = Codec(reader, Encoder(schema_id, text), publisher.limits[request.topic])
    if isinstance(publisher, TransactionalPublisher):
        return _publish_once(publisher, request, codec, file_facts(request, schema_id, text), interrupt)
    return _publish(publisher, request, codec, interrupt)


def _publisher(settings: Settings, request: FileRequest) -> Publisher | TransactionalPublisher:
    if request.exactly_once:
        return TransactionalPublisher(settings, request.topic, request.exactly_once, [request.topic])
    return Publisher(settings.kafka, settings.producer, [request.topic])


def _publish(publisher: Publisher, request: FileRequest, codec: Codec, interrupt: Interrupt) -> Report:
    candidates = iter([request.rejects]) if request.rejects else numbered(state_dir() / "rejects", request.topic)
    rejects = Rejects(candidates, request.limit)
    rows = FileRows(request, codec, rejects)
    with interrupt:
        report = publisher.publish(rows.batches(), interrupt, Progress())
    rejects.close()
    _print_rows(rows.read, rejects.count, rejects.path)
    return report


def _publish_once(
    publisher: TransactionalPublisher, request: FileRequest, codec: Codec, facts: dict[str, str], interrupt: Interrupt
) -> Report:
    start = publisher.begin(facts, lambda: _require_no_rejects(request))
    if line := told(start, publisher.name, "row"):
        print(line)
    if start.complete:
        return Report({}, {}, {}, seconds=0.0)
    own = request.rejects or state_dir() / "rejects" / f"{request.topic}-{publisher.name}-{start.id.query_id[:8]}.jsonl"
    rejects = Rejects(iter([own]), request.limit, earlier=start.rejected)
    rows = FileRows(request, codec, rejects, start.read)
    with interrupt:
        report = publisher.publish(rows.batches(), interrupt, Progress(), rows.position)
    rejects.close()
    _print_rows(publisher.last.read, publisher.last.rejected, rejects.path)
    return report


def _require_no_rejects(request: FileRequest) -> None:
    if request.rejects and request.rejects.exists():
        raise is_there(request.rejects)


def _print_rows(read: int, rejected: int, path: Path | None) -> None:
    where = f" (see {path})" if path else ""
    print(f"read {read:,} rows = {read - rejected:,} accepted + {rejected:,} rejected{where}")


def _create(settings: Settings, topic: Topic) -> None:
    admin = AdminClient(connection_config(settings.kafka, lambda error: None))
    if create_topic(admin, topic, settings.kafka.replication_factor):
        kept = "forever" if topic.retention_ms < 0 else f"for {topic.retention_ms:,} ms"
        print(f"topic: created {topic.name}, {topic.partitions} partitions, records kept {kept}")
