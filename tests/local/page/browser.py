"""Asks the page as a browser does, in this process."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from httpx2 import ASGITransport, AsyncClient, Response
from pydantic import SecretStr

from conf.settings import Settings, load
from local.page.server import create_app
from local.processes import wait_for

DOWN = "127.0.0.1:1"  # nothing listens there; it takes seconds to be sure


@dataclass
class Browser:
    """A page over the folders of one test."""

    folder: Path
    servers: str = ""  # none: that is known at once
    token: str = ""
    only_this_machine: bool = True
    host: str = "http://127.0.0.1:8400"
    sets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._app = create_app(self.settings, SecretStr(self.token), self.only_this_machine)

    def settings(self) -> Settings:
        own = [f"paths.{name}={self.folder / name}" for name in ("tables", "checkpoints", "logs")]
        settings = load("local", [*own, *self.sets])
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": self.servers})
        return settings.model_copy(update={"kafka": kafka})

    def ask(
        self, path: str, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> Response:
        async def ask() -> Response:
            async with AsyncClient(transport=ASGITransport(self._app), base_url=self.host) as client:
                if form is not None:
                    return await client.post(path, headers=headers, data=dict(form))
                return await client.get(path, headers=headers)

        return asyncio.run(ask())

    def text(self, path: str) -> str:
        """What the page says once it has been read."""
        shown = self.ask(path)
        assert shown.status_code == 200, shown.text

        def is_read() -> bool:
            nonlocal shown
            shown = self.ask(path)
            return 'data-loading="no"' in shown.text

        wait_for(is_read, 30, lambda: AssertionError(shown.text))
        return shown.text

    def text_with(self, path: str, wanted: str) -> str:
        """What the page says once `wanted` is in it: an older answer is shown for a while."""
        until = time.monotonic() + 30
        while wanted not in (text := self.text(path)):
            assert time.monotonic() < until, text
        return text
