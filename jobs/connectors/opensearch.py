"""Writes documents to OpenSearch, each once: a document's id is the place that it came from.

Plain REST: the bulk API and a handful of others, over the HTTP library that the registry's client brings.
"""

import json
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2

from conf.errors import TidemarkError
from conf.settings import Search

CONNECT_SECONDS = 2.0  # a batch waits no longer for a host that swallows packets
REQUEST_SECONDS = 30.0
CREATED, OK, NOT_FOUND, CONFLICT, BUSY = 201, 200, 404, 409, 429
SERVER_ERRORS = 500
POSITIONS = "tidemark-positions"
REMEDY = (
    "see that it runs, that search.url is right, and that search.username may write; what is missing is indexed later"
)


class Document(NamedTuple):
    """A document, the index of its day, and its id: the place that it came from."""

    day: str
    place: str
    source: Mapping[str, Any]


class Refused(NamedTuple):
    """A document that OpenSearch will not have, and why."""

    place: str
    reason: str


class OpenSearch:
    """A client of one cluster; every method raises TidemarkError SEARCH_UNAVAILABLE where it does not do its work."""

    def __init__(self, settings: Search) -> None:
        self._url = settings.url
        password = settings.password.get_secret_value()
        verify = ssl.create_default_context(cafile=settings.ca_location) if settings.ca_location else True
        self._client = httpx2.Client(
            base_url=settings.url,
            auth=(settings.username, password) if settings.username else None,
            verify=verify,
            timeout=httpx2.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
        )

    def close(self) -> None:
        """Give the connections up."""
        self._client.close()

    def put_template(self, name: str, template: Mapping[str, Any]) -> None:
        """Make an index template, or replace it."""
        self._ask("PUT", f"/_index_template/{name}", template)

    def indices(self, pattern: str) -> list[str]:
        """Return the names of the indices that match `pattern`."""
        listed = self._ask("GET", f"/_cat/indices/{pattern}?h=index&format=json&expand_wildcards=open", may_miss=True)
        with self._understood():
            return sorted(row["index"] for row in listed or ())

    def delete_indices(self, names: Sequence[str]) -> None:
        """Delete whole indices; one that is gone already is as good."""
        for name in names:
            self._ask("DELETE", f"/{name}", may_miss=True)

    def position(self, topic: str) -> dict[int, int]:
        """Return the offset up to which each partition of `topic` is indexed (exclusive);
        empty where there is no index."""
        found = self._ask("GET", f"/{POSITIONS}/_doc/{topic}", may_miss=True)
        with self._understood():
            offsets = found["_source"]["offsets"] if found else {}
            return {int(partition): int(offset) for partition, offset in offsets.items()}

    def set_position(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Store what `position` returns."""
        self._ask("PUT", f"/{POSITIONS}/_doc/{topic}", {"offsets": {str(key): value for key, value in offsets.items()}})

    def create(self, documents: Iterable[Document]) -> list[Refused]:
        """Write documents that are not there yet, and leave those that are alone; what it will not have is returned."""
        lines = []
        for name, place, source in documents:
            lines += [json.dumps({"create": {"_index": name, "_id": place}}), json.dumps(source, ensure_ascii=False)]
        if not lines:
            return []
        answer = self._ask("POST", "/_bulk", content="\n".join(lines) + "\n")
        refused = []
        with self._understood():
            for item in (item["create"] for item in answer["items"]):
                if item["status"] == BUSY or item["status"] >= SERVER_ERRORS:
                    raise self._unavailable(f"it answers {item['status']} to a document")
                if item["status"] not in (CREATED, OK, CONFLICT):
                    refused.append(Refused(item["_id"], str(item["error"].get("reason"))))
        return refused

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Name an answer that is not understood: another program that listens there may answer anything."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise self._unavailable(f"it does not answer as OpenSearch does ({type(exc).__name__}: {exc})") from exc

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content: str | None = None,
        may_miss: bool = False,
    ) -> Any:
        """Return its answer; None where it has no such thing and `may_miss` allows that."""
        headers = {"Content-Type": "application/x-ndjson" if content else "application/json"}
        sent = content if content is not None else json.dumps(body) if body is not None else None
        try:
            response = self._client.request(method, path, content=sent, headers=headers)
            if response.status_code == NOT_FOUND and may_miss:
                return None
            if response.status_code not in (OK, CREATED):
                raise self._unavailable(f"it answers {response.status_code} to {method} {path.partition('?')[0]}")
            return response.json()
        except (httpx2.TransportError, ValueError) as exc:
            raise self._unavailable(f"{type(exc).__name__}: {exc}") from exc

    def _unavailable(self, why: str) -> TidemarkError:
        return TidemarkError("SEARCH_UNAVAILABLE", f"OpenSearch {self._url}: {why}", REMEDY)
