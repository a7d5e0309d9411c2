"""Asks a registry that speaks Confluent's REST API, and bounds what its answers may take in memory and time.

The client itself bounds each read of a socket, not an answer: one without end would fill the memory, and one that
sends a byte now and then would never be there.
"""

import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar, cast

import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from conf.errors import TidemarkError
from conf.settings import Registry as RegistrySettings
from schemas.compatibility import require_compatible
from schemas.registry import RegisteredSchema, Registry, RetryPolicy, UnavailableError
from schemas.schema_text import AVRO, RawSchema, Reference, inlined, kind_of, normalized, referenced_texts
from schemas.validity import load_schema

Answer = TypeVar("Answer")

REQUEST_SECONDS = 10.0
ANSWER_BYTES = 16 * 2**20  # a hundred thousand subjects with long names
ANSWER_SECONDS = 30.0
MOST_VERSIONS = 10_000  # of one subject; each is asked for by itself
PLAIN = "identity"
# HTTP status and the registry's own code; a status without the code that belongs to it is not a registry's answer.
# Not there: subject, version, schema. Deleted, and kept for now: a subject, a version.
MISSING = {(404, code) for code in (40401, 40402, 40403, 40404, 40406)}
# By the registry's own code: what a refusal is called, and what to do about it. Newer registries have 40901 for 409.
COMPARE = "mend the schema, or compare the registry's own level with registry.compatibility"
REFUSED = {
    409: ("INCOMPATIBLE_SCHEMA", COMPARE),
    40901: ("INCOMPATIBLE_SCHEMA", COMPARE),
    42201: ("INVALID_SCHEMA", "mend the schema"),
    42205: (
        "REGISTRY_NOT_WRITABLE",
        "let whoever runs it set its mode, and the subject's, to READWRITE (PUT /mode, /mode/SUBJECT); where it "
        "is a copy, set registry.url to the one that it is copied from",
    ),
    42208: ("REGISTRY_REFUSED", "take a topic by whose name the registry lets a subject be called"),
    42209: ("REGISTRY_REFUSED", "make the schema shorter, or raise the registry's limit"),
}
ASK = "ask whoever runs the registry: it says that about a question which other registries answer"
OF_REGISTRY = (404, 409, 422)  # the statuses that go with such codes
REFUSALS = {
    401: "check registry.username, registry.password and what this user may do",
    403: "let the user registry.username do that in the registry, or log in as another",
}
# What is wrong in the registry, beside the status.
FAILURES = {
    50001: "its store fails",
    50002: "its store takes too long",
    50003: "it does not reach its leader",
    50004: "it has no leader",
}
BUSY = (408, 429)


class HttpRegistry(Registry):
    """A registry over HTTP. Texts never change and are asked for once; what is registered is asked anew each time."""

    def __init__(self, settings: RegistrySettings, retry: RetryPolicy) -> None:
        self.place, self._level, self._retry = settings.url, settings.compatibility, retry
        # Retries are ours: the client's own say nothing, and end.
        config: dict[str, object] = {"url": settings.url, "timeout": REQUEST_SECONDS, "max.retries": 0}
        if settings.username:
            config["basic.auth.user.info"] = f"{settings.username}:{settings.password.get_secret_value()}"
        if settings.ca_location:
            config["ssl.ca.location"] = settings.ca_location
        self._config, self._client = config, _connect(config)
        self._whole_texts: dict[RawSchema, str] = {}

    def register(self, subject: str, text: str) -> int:
        load_schema(text)
        earlier = [version for version in self.all_versions(subject) if version.is_avro]
        # Some registries take other white space, or another order of attributes, for another schema.
        new_text = normalized(text)
        for version in earlier:
            if normalized(version.text) == new_text:
                return version.id
        require_compatible(subject, text, earlier, self._level)
        new = Schema(text, AVRO)
        return self._ask(f"the registration of {subject}", lambda: _id(self._client.register_schema(subject, new)))

    def schema(self, schema_id: int) -> str:
        try:
            raw = self._ask(f"schema {schema_id}", lambda: _raw(self._client.get_schema(schema_id)))
        except _MissingError as exc:
            remedy = "register it, or find out who wrote records with it"
            raise TidemarkError("UNKNOWN_SCHEMA_ID", f"no schema has id {schema_id} in {self.place}", remedy) from exc
        if raw.kind != AVRO:
            what = f"schema id {schema_id} in {self.place} is of type {raw.kind}, and only Avro is read here"
            raise TidemarkError("UNSUPPORTED_SCHEMA", what, "find out who wrote records with it")
        text, problem = self._resolved(raw)
        if problem is not None:
            raise TidemarkError("BAD_SCHEMA", f"schema id {schema_id} in {self.place}: {problem[0]}", problem[1])
        return text

    def subjects(self) -> list[str]:
        return sorted(self._ask("the subjects", lambda: _list_of(str, self._client.get_subjects())))

    def all_versions(self, subject: str) -> list[RegisteredSchema]:
        try:
            numbers = self._ask(f"the versions of {subject}", lambda: _numbers(self._client.get_versions(subject)))
        except _MissingError:
            return []
        return [self._version(subject, number) for number in sorted(numbers)]

    def _version(self, subject: str, number: int) -> RegisteredSchema:
        def ask() -> tuple[int, RawSchema]:
            version = self._client.get_version(subject, number)
            return _id(version.schema_id), _raw(version.schema)

        schema_id, raw = self._ask(f"version {number} of {subject}", ask)
        text, problem = self._resolved(raw)
        return RegisteredSchema(schema_id, subject, number, text, raw.kind, problem)

    def _resolved(self, raw: RawSchema) -> tuple[str, tuple[str, str] | None]:
        """Return the text with the types that it refers to, and why some cannot be there."""
        if raw.kind != AVRO or not raw.references:
            return raw.text, None
        if raw not in self._whole_texts:
            try:
                self._whole_texts[raw] = inlined(raw.text, tuple(referenced_texts(raw, self._referenced)))
            except TidemarkError as exc:
                return raw.text, (exc.message, exc.remedy)
        return self._whole_texts[raw], None

    def _referenced(self, subject: str, number: int) -> RawSchema | None:
        """Return a version that others refer to; None where it is not there. One that was deleted since, and is kept
        for now, is: what refers to it was written by it."""

        def ask() -> RawSchema:
            return _raw(self._client.get_version(subject, number, deleted=True).schema)

        try:
            return self._ask(f"version {number} of {subject}", ask)
        except _MissingError:
            return None

    def _ask(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """Return the client's answer, waited for; raises `_MissingError` and TidemarkErrors."""

        def ask_once() -> Answer:
            try:
                return _within_time(ask)
            except TimeoutError as exc:
                # The thread that still waits for it is cut off, and the next question does not queue behind it.
                self._client._rest_client.session.close()
                self._client = _connect(self._config)
                raise UnavailableError(f"no whole answer within {ANSWER_SECONDS:.0f} s") from exc
            except UnfitAnswerError as exc:
                raise self._not_a_registry(str(exc)) from exc
            except SchemaRegistryError as exc:
                raise self._error(what, exc) from exc
            except httpx2.TransportError as exc:
                raise self._unreachable(exc) from exc
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
                raise self._not_a_registry(f"no JSON of a registry: {type(exc).__name__}") from exc

        return self._retry.ask(self.place, what, ask_once)

    def _error(self, what: str, exc: SchemaRegistryError) -> Exception:
        status, code = exc.http_status_code, exc.error_code
        if (status, code) in MISSING:
            self._retry.answered = True
            remedy = "if it was there a moment ago, it was deleted: ask again"
            return _MissingError("UNKNOWN_VERSION", f"{self.place} does not know {what}", remedy)
        # 42201 with 422, but not 404 with 404, which is anybody's.
        if status in OF_REGISTRY and isinstance(code, int) and (code // 100 == status or code == status == 409):
            self._retry.answered = True
            name, remedy = REFUSED.get(code, ("REGISTRY_REFUSED", ASK))
            message = " ".join(str(exc.error_message).split())
            return TidemarkError(name, f"{self.place} refuses {what}: {message} ({code})", remedy)
        if status in REFUSALS:
            return TidemarkError("REGISTRY_REFUSED", f"{self.place} answers {status} to {what}", REFUSALS[status])
        if status in BUSY or status >= 500:
            failure = FAILURES.get(code)
            return UnavailableError(f"HTTP {status}, {failure}" if failure else f"HTTP {status}")
        return self._not_a_registry(f"HTTP {status} without an error code that a registry has for {what}")

    def _unreachable(self, exc: httpx2.TransportError) -> Exception:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                what = f"the certificate of {self.place} is not trusted: {cause.verify_message}"
                return TidemarkError(
                    "REGISTRY_REFUSED", what, "set registry.ca_location to the authority's certificate"
                )
            cause = cause.__cause__ or cause.__context__
        return UnavailableError(str(exc) or type(exc).__name__)

    def _not_a_registry(self, what: str) -> Exception:
        # A proxy before a registry that is down answers in its place: once the address has proved right, that passes.
        if self._retry.answered:
            return UnavailableError(what)
        remedy = "correct registry.url: it ends where /subjects would follow"
        return TidemarkError("NOT_A_REGISTRY", f"{self.place} answers, but not as a registry does: {what}", remedy)


class UnfitAnswerError(Exception):
    """An answer that no registry gives; in a few words, why."""


class _MissingError(TidemarkError):
    """The registry says that it does not know what was asked for."""


def _connect(config: dict[str, object]) -> SchemaRegistryClient:
    """Return a client that takes no answer of more than ANSWER_BYTES, none that is compressed, and follows no redirect:
    each raises UnfitAnswerError."""
    client = SchemaRegistryClient(config)
    session = client._rest_client.session  # there is no other way to it
    session.follow_redirects = False
    session.headers["Accept-Encoding"] = PLAIN
    session.event_hooks = {"response": [_require_fit]}
    return client


def _require_fit(response: httpx2.Response) -> None:
    encoding = response.headers.get("Content-Encoding", PLAIN)
    if encoding != PLAIN:
        # Compressed, a few kilobytes may hold gigabytes.
        raise UnfitAnswerError(f"it is compressed ({encoding}), which was not asked for")
    if response.is_redirect:
        # The host there would get the login, or be taken for the registry.
        raise UnfitAnswerError(f"HTTP {response.status_code}, a redirect, which is not followed")
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _BoundedStream(response.stream)


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > ANSWER_BYTES:
                raise UnfitAnswerError(f"it is longer than {ANSWER_BYTES:,} bytes")
            yield part

    def close(self) -> None:
        self._stream.close()


def _within_time(ask: Callable[[], Answer]) -> Answer:
    """Return what `ask` returns, or raise what it raises, within ANSWER_SECONDS; TimeoutError past them.

    It runs in a thread of its own, which is left to itself when the time is over.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as exc:
            answer.set_exception(exc)

    Thread(target=run, name="registry", daemon=True).start()
    return answer.result(ANSWER_SECONDS)


def _list_of(kind: type[Answer], answer: object) -> list[Answer]:
    if not isinstance(answer, list) or not all(isinstance(item, kind) for item in answer):
        raise TypeError("not the list that was asked for")
    return answer


def _numbers(answer: object) -> list[int]:
    numbers = _list_of(int, answer)
    if len(numbers) > MOST_VERSIONS:
        raise UnfitAnswerError(f"more than {MOST_VERSIONS:,} versions of a subject")
    return numbers


def _id(answer: int | None) -> int:
    if answer is None:
        raise TypeError("no id")
    return answer


def _raw(schema: Schema | None) -> RawSchema:
    if schema is None or not isinstance(schema.schema_str, str):
        raise TypeError("no schema")
    references = tuple((each.name, each.subject, each.version) for each in schema.references or ())
    for name, subject, number in references:
        if not (isinstance(name, str) and isinstance(subject, str) and isinstance(number, int)):
            raise TypeError("no reference")
    kind = kind_of(schema.schema_str, str(schema.schema_type or AVRO).upper())
    return RawSchema(schema.schema_str, kind, cast(tuple[Reference, ...], references))
