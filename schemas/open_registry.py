"""Opens the registry that the settings name: a folder, or a server."""

from conf.settings import Registry as RegistrySettings
from schemas.registry import Registry, RetryPolicy


def open_registry(settings: RegistrySettings, retry: RetryPolicy | None = None) -> Registry:
    """Return the registry that the settings name: over HTTP where `registry.url` is set,
    else the folder `registry.path`.

    Args:
        retry: how long a registry that does not answer is waited for; a command's, where it is left out.
    """
    # Each store is imported where it is used: the client alone takes as long to import as all else that a command does.
    if settings.url:
        from schemas.registry_http import HttpRegistry

        return HttpRegistry(settings, retry or RetryPolicy())
    from schemas.registry_folder import FileRegistry

    return FileRegistry(settings.path, settings.compatibility)
