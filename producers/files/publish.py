"""Publishes any CSV, JSON, Parquet or Avro file into any topic.

A row becomes a record, or a reject: what does not fit the schema exactly, lacks its key or its event time, or is
too large for the topic is written down with file, line and reason, and the rest goes on. Every row is counted.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka.admin import AdminClient

from conf import state_dir
from conf.errors import TidemarkError
from conf.names import require_topic
from conf.settings import Settings
from conf.topics import Topic, load_topics
from jobs.connectors.kafka.refusals import Limits
from producers.files.inputs import open_inputs, require_files
from producers.files.records import Codec, FileRows
from producers.files.rejects import Rejects, already_exists, numbered
from producers.files.request import DEFAULT_UNIT, FileRequest
from producers.files.row_reader import RowReader
from producers.files.schema import Inferred, find_schema, infer_schema, write_schema
from producers.kafka.pacing import Interrupt, Progress
from producers.kafka.preflight import create_topic, is_missing
from producers.kafka.publish_progress import digest_of_files, earlier_runs
from producers.kafka.publisher import Publisher, Report, connection_config
from producers.kafka.transactional import TransactionalPublisher
from schemas.contracts import FOLDER, contract_path, require_event, subject_for
from schemas.open_registry import open_registry
from schemas.registry import fingerprint


def publish_files(settings: Settings, request: FileRequest, interrupt: Interrupt, folder: Path = FOLDER) -> Report:
    """Publish every row that fits, and print the accounts of rows.

    Raises:
        TidemarkError: BAD_NAME of the topic; of the broker (NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC), the files, the
            schema, the registry, and UNKNOWN_FIELD or UNFIT_FIELD; all before anything is sent, and before a topic is
            created or a schema written. What comes later is the report's cause.
    """
    require_topic(request.topic)
    require_files(request.paths)
    declared = load_topics().get(request.topic)
    new = declared or Topic(request.topic, request.create_partitions or 1, key="")
    missing = request.create_partitions is not None and is_missing(settings.kafka, new)
    publisher = None if missing else _publisher(settings, request)
    text = find_schema(request.topic, request.schema, declared, folder)
    inferred = None if text is not None else _inferred(request)
    text = inferred.text if inferred else str(text)
    subject = subject_for(request.topic, text, declared)
    require_event(subject, text)
    reader = RowReader(text, request)
    for file in open_inputs(request.paths, request.opening):
        reader.check_columns(file)
    if missing:
        _require_rows(request, reader, text)
    schema_id = open_registry(settings.registry).register(subject, text)
    if inferred:
        write_schema(inferred, contract_path(request.topic, folder))
    if publisher is None:
        _create(settings, new)
        publisher = _publisher(settings, request)
    codec = Codec(reader, schema_id, text, publisher.limits[request.topic])
    if isinstance(publisher, TransactionalPublisher):
        return _publish_once(publisher, request, codec, file_identity(request, schema_id, text), interrupt)
    return _publish(publisher, request, codec, interrupt)


def infer_only(request: FileRequest, folder: Path = FOLDER) -> None:
    """Infer the schema, and write it to the place named, or to `<topic>.avsc` in `folder`."""
    require_topic(request.topic)
    path = request.schema or contract_path(request.topic, folder)
    if path.exists():
        raise TidemarkError("SCHEMA_EXISTS", f"{path} is there already", "remove it to infer the schema anew")
    write_schema(_inferred(request), path)


def file_identity(request: FileRequest, schema_id: int, text: str) -> dict[str, str]:
    """Return all that decides on the records of files, by name; a run goes on only where all of it is the same.
    Raises TidemarkError BAD_FILE."""
    parts, reading, opening = request.parts, request.reading, request.opening
    return {
        "topic": request.topic,
        "files": json.dumps([path.name for path in request.paths]),
        "contents": digest_of_files(request.paths),
        "schema": f"{schema_id} {fingerprint(text)}",
        "--key": json.dumps(parts.key),
        "--event-time": json.dumps([parts.event_time, parts.unit or DEFAULT_UNIT]),
        "--time-zone": json.dumps([str(parts.zone), str(reading.zone)]),
        # Absent by default, so that runs begun before there was the option can go on.
        **({"--event-time-unit": parts.unit} if parts.unit == DEFAULT_UNIT else {}),
        **({"--encoding": opening.encoding} if opening.encoding else {}),
        **({} if opening.quoted else {"--quote": "none"}),
        **({"--ambiguous": parts.ambiguous} if parts.ambiguous != "earlier" else {}),
        "--header": hashlib.sha256(json.dumps(parts.headers).encode()).hexdigest(),
        "--header-field": json.dumps(parts.header_fields),
        "--null": json.dumps(sorted(reading.nulls)),
        **({"--empty-text": "true"} if reading.empty_is_text else {}),
        "--ignore-extra": json.dumps(reading.ignore_extra),
        "--format": json.dumps([opening.format, opening.delimiter]),
    }


def _inferred(request: FileRequest) -> Inferred:
    return infer_schema(request.topic, open_inputs(request.paths, request.opening), request.reading.nulls)


def _require_rows(request: FileRequest, reader: RowReader, text: str) -> None:
    """Read the first rows for the sake of what would stop them, while there is no topic yet.

    Raises:
        TidemarkError: of the files; TOO_MANY_REJECTS, with the rows in the reject file.
    """
    rejects = Rejects(_reject_files(request), request.limit, reported=0)
    try:
        next(FileRows(request, Codec(reader, 0, text, Limits()), rejects, is_trial=True).batches(), None)
    finally:
        rejects.close()
    rejects.discard()


def _reject_files(request: FileRequest) -> Iterator[Path]:
    return iter([request.rejects]) if request.rejects else numbered(state_dir() / "rejects", request.topic)


def _publisher(settings: Settings, request: FileRequest) -> Publisher | TransactionalPublisher:
    if request.exactly_once:
        return TransactionalPublisher(settings, request.topic, request.exactly_once, [request.topic])
    return Publisher(settings.kafka, settings.producer, [request.topic])


def _publish(publisher: Publisher, request: FileRequest, codec: Codec, interrupt: Interrupt) -> Report:
    rejects = Rejects(_reject_files(request), request.limit)
    rows = FileRows(request, codec, rejects)
    with interrupt:
        report = publisher.publish(rows.batches(), interrupt, Progress())
    _finish(rows, rejects, rows.read, rejects.count)
    return report


def _publish_once(
    publisher: TransactionalPublisher,
    request: FileRequest,
    codec: Codec,
    identity: dict[str, str],
    interrupt: Interrupt,
) -> Report:
    start = publisher.begin(identity, lambda: _require_no_rejects(request))
    if line := earlier_runs(start, publisher.name, "row"):
        print(line)
    if start.complete:
        return Report({}, {}, {}, seconds=0.0)
    name = f"{request.topic}-{publisher.name}-{start.id.query_id[:8]}.jsonl"
    path = request.rejects or state_dir() / "rejects" / name
    rejects = Rejects(iter([path]), request.limit, earlier=start.rejected)
    rows = FileRows(request, codec, rejects, start.read)
    with interrupt:
        report = publisher.publish(rows.batches(), interrupt, Progress(), rows.position)
    _finish(rows, rejects, publisher.last.read, publisher.last.rejected)
    return report


def _require_no_rejects(request: FileRequest) -> None:
    if request.rejects and request.rejects.exists():
        raise already_exists(request.rejects)


def _finish(rows: FileRows, rejects: Rejects, read: int, rejected: int) -> None:
    rejects.close()
    rows.print_notes()
    where = f" (see {rejects.path})" if rejects.path else ""
    print(f"read {read:,} rows = {read - rejected:,} accepted + {rejected:,} rejected{where}")


def _create(settings: Settings, topic: Topic) -> None:
    admin = AdminClient(connection_config(settings.kafka, lambda error: None))
    if create_topic(admin, topic, settings.kafka.replication_factor, None, settings.kafka.client_config()):
        kept = "forever" if topic.retention_ms < 0 else f"for {topic.retention_ms:,} ms"
        size = "1 partition" if topic.partitions == 1 else f"{topic.partitions} partitions"
        print(f"topic: created {topic.name}, {size}, records kept {kept}")
