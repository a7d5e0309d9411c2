"""Which registry the settings name: the folder, or a server."""

from conf.settings import Registry as RegistrySettings
from schemas.patience import Patience
from schemas.registry import Registry


def open_registry(settings: RegistrySettings, patience: Patience | None = None) -> Registry:
    """The registry that the settings name: over HTTP where `registry.url` is set, else the folder `registry.path`.

    Args:
        patience: how long a registry that does not answer is waited for; a command's, where it is left out.

    Raises:
        TidemarkError: BAD_SETTING, where `registry.ca_location` holds no certificates.
    """
    # Each store is imported where it is used: the client alone takes as long to import as all else that a command does.
    if settings.url:
        from schemas.http_registry import HttpRegistry

        return HttpRegistry(settings, patience or Patience())
    from schemas.file_registry import FileRegistry

    return FileRegistry(settings.path, settings.compatibility)
