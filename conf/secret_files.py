"""A secret that lies in a file, as Kubernetes and Docker mount them, and is read again when it is asked for."""

from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from conf.errors import TidemarkError


class SecretFile(SecretStr):
    """The text of a file, without the line break at its end.

    A file that is written anew is empty or missing for a moment: then, the secret is what was read last.
    """

    def __init__(self, path: str, setting: str) -> None:
        """Read the file for the first time.

        Raises:
            TidemarkError: BAD_SETTING, with the `setting` that names the file.
        """
        try:
            text = _read(path)
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text in UTF-8"
            raise TidemarkError("BAD_SETTING", f"{setting} {path} cannot be read: {reason}", "mend it") from None
        if not text:
            raise TidemarkError("BAD_SETTING", f"{setting} {path} is empty", "write the secret into it")
        super().__init__(text)
        self.path = path

    def get_secret_value(self) -> str:
        """The secret as the file has it now."""
        with suppress(OSError, UnicodeDecodeError):
            self._secret_value = _read(self.path) or self._secret_value
        return self._secret_value


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
