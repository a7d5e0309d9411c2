"""Opens the registry that the settings name: a folder, or a server."""

from conf.settings import Registry as RegistrySettings
from schemas.registry import FileRegistry, Registry, RetryPolicy


def open_registry(settings: RegistrySettings, retry: RetryPolicy | None = None) -> Registry:
    """Return the registry that the settings name: over HTTP where `registry.url` is set, else a folder. One that does
    not answer is waited for as a command does, where no `retry` is given."""
    if not settings.url:
        return FileRegistry(settings.path, settings.compatibility)
    from schemas.registry_http import HttpRegistry  # here: it takes as long to load as all else that a command does

    return HttpRegistry(settings, retry or RetryPolicy())
