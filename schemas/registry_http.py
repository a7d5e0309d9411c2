"""Asks a registry that speaks Confluent's REST API."""

import ssl
from collections.abc import Callable
from typing import TypeVar

import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from conf.errors import TidemarkError, nearest
from conf.settings import Registry as RegistrySettings
from schemas import answer_bounds
from schemas.compatibility import require_compatible
from schemas.registry import RegisteredSchema, RetryPolicy, UnavailableError
from schemas.schema_text import normalized
from schemas.validity import load_schema

Answer = TypeVar("Answer")

REQUEST_SECONDS = 10.0
# HTTP status and the registry's own code; a status without the code that belongs to it is not a registry's answer.
MISSING = {(404, 40401), (404, 40402), (404, 40403)}  # subject, version, schema
REFUSED_SCHEMA = {409: "INCOMPATIBLE_SCHEMA", 422: "INVALID_SCHEMA"}
REFUSALS = (401, 403)
BUSY = (408, 429)


class HttpRegistry:
    """A registry over HTTP. Texts never change and are asked for once; what is registered is asked anew each time."""

    def __init__(self, settings: RegistrySettings, retry: RetryPolicy) -> None:
        self._url, self._level, self._retry = settings.url, settings.compatibility, retry
        # Retries are ours: the client's own say nothing, and end.
        config: dict[str, object] = {"url": settings.url, "timeout": REQUEST_SECONDS, "max.retries": 0}
        if settings.username:
            config["basic.auth.user.info"] = f"{settings.username}:{settings.password.get_secret_value()}"
        if settings.ca_location:
            config["ssl.ca.location"] = settings.ca_location
        self._config = config
        self._client = self._connected()

    def _connected(self) -> SchemaRegistryClient:
        client = SchemaRegistryClient(self._config)
        answer_bounds.bound(client._rest_client.session)  # there is no other way to it
        return client

    def register(self, subject: str, text: str) -> int:
        """See `Registry`."""
        load_schema(text)
        earlier = self._versions(subject)
        # Some registries take other white space, or another order of attributes, for another schema.
        new_text = normalized(text)
        for version in earlier:
            if normalized(version.text) == new_text:
                return version.id
        require_compatible(subject, text, earlier, self._level)
        new = Schema(text, "AVRO")
        return self._ask(f"the registration of {subject}", lambda: _id(self._client.register_schema(subject, new)))

    def schema(self, schema_id: int) -> str:
        """See `Registry`."""
        try:
            return self._ask(f"schema {schema_id}", lambda: _text(self._client.get_schema(schema_id)))
        except _MissingError as exc:
            remedy = "register it, or find out who wrote records with it"
            raise TidemarkError("UNKNOWN_SCHEMA_ID", f"no schema has id {schema_id} in {self._url}", remedy) from exc

    def latest(self, subject: str) -> RegisteredSchema:
        """See `Registry`."""
        return self.versions(subject)[-1]

    def versions(self, subject: str) -> list[RegisteredSchema]:
        """See `Registry`."""
        versions = self._versions(subject)
        if not versions:
            what = f"no subject `{subject}` in {self._url}"
            raise TidemarkError("UNKNOWN_SUBJECT", what, nearest(subject, self.subjects()))
        return versions

    def subjects(self) -> list[str]:
        """See `Registry`."""
        return sorted(self._ask("the subjects", lambda: _list_of(str, self._client.get_subjects())))

    def _versions(self, subject: str) -> list[RegisteredSchema]:
        try:
            numbers = self._ask(f"the versions of {subject}", lambda: _numbers(self._client.get_versions(subject)))
        except _MissingError:
            return []
        return [self._version(subject, number) for number in sorted(numbers)]

    def _version(self, subject: str, number: int) -> RegisteredSchema:
        def ask() -> RegisteredSchema:
            version = self._client.get_version(subject, number)
            return RegisteredSchema(_id(version.schema_id), subject, number, _text(version.schema))

        return self._ask(f"version {number} of {subject}", ask)

    def _ask(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """Return the client's answer, waited for; raises `_MissingError` and TidemarkErrors."""

        def ask_once() -> Answer:
            try:
                return answer_bounds.within_time(ask)
            except TimeoutError as exc:
                # The thread that still waits for it is cut off, and the next question does not queue behind it.
                self._client._rest_client.session.close()
                self._client = self._connected()
                raise UnavailableError(f"no whole answer within {answer_bounds.ANSWER_SECONDS:.0f} s") from exc
            except answer_bounds.UnfitAnswerError as exc:
                raise self._not_a_registry(str(exc)) from exc
            except SchemaRegistryError as exc:
                raise self._error(what, exc) from exc
            except httpx2.TransportError as exc:
                raise self._unreachable(exc) from exc
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
                raise self._not_a_registry(f"no JSON of a registry: {type(exc).__name__}") from exc

        return self._retry.ask(self._url, what, ask_once)

    def _error(self, what: str, exc: SchemaRegistryError) -> Exception:
        status = exc.http_status_code
        if (status, exc.error_code) in MISSING:
            self._retry.answered = True
            remedy = "if it was there a moment ago, it was deleted: ask again"
            return _MissingError("UNKNOWN_VERSION", f"{self._url} does not know {what}", remedy)
        if status in REFUSED_SCHEMA:
            remedy = "mend the schema, or compare the registry's own level with registry.compatibility"
            return TidemarkError(REFUSED_SCHEMA[status], f"{self._url} refuses {what}: {_line(exc)}", remedy)
        if status in REFUSALS:
            remedy = "check registry.username, registry.password and what this user may do"
            return TidemarkError("REGISTRY_REFUSED", f"{self._url} answers {status} to {what}", remedy)
        if status in BUSY or status >= 500:
            return UnavailableError(f"HTTP {status}")
        return self._not_a_registry(f"HTTP {status} without an error code that a registry has for {what}")

    def _unreachable(self, exc: httpx2.TransportError) -> Exception:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                what = f"the certificate of {self._url} is not trusted: {cause.verify_message}"
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
        return TidemarkError("NOT_A_REGISTRY", f"{self._url} answers, but not as a registry does: {what}", remedy)


class _MissingError(TidemarkError):
    """The registry says that it does not know what was asked for."""


def _list_of(kind: type[Answer], answer: object) -> list[Answer]:
    if not isinstance(answer, list) or not all(isinstance(item, kind) for item in answer):
        raise TypeError("not the list that was asked for")
    return answer


def _numbers(answer: object) -> list[int]:
    numbers = _list_of(int, answer)
    if len(numbers) > answer_bounds.MOST_VERSIONS:
        raise answer_bounds.UnfitAnswerError(f"more than {answer_bounds.MOST_VERSIONS:,} versions of a subject")
    return numbers


def _id(answer: int | None) -> int:
    if answer is None:
        raise TypeError("no id")
    return answer


def _text(schema: Schema | None) -> str:
    if schema is None or schema.schema_str is None:
        raise TypeError("no schema")
    if schema.schema_type != "AVRO" or schema.references:
        problem = "refers to other subjects" if schema.references else f"is of type {schema.schema_type}"
        what = f"a schema {problem}: {schema.schema_str[:60]}"
        raise TidemarkError("UNSUPPORTED_SCHEMA", what, "register Avro schemas that hold all their types")
    return schema.schema_str


def _line(exc: SchemaRegistryError) -> str:
    return " ".join(str(exc.error_message).split())
