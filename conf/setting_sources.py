"""Reads settings from TOML files, environment variables and `--set`; pydantic-settings merges what is read here.

pydantic-settings passes over a variable that it does not know: here every name is checked, wherever it stands.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource

from conf.credentials import REFERENCE
from conf.errors import TidemarkError, nearest
from conf.names import is_text

PREFIX = "TIDEMARK_"
# Variables with our prefix that are not settings: they say where state lies, which overlay holds, and how setup runs.
NOT_SETTINGS = {
    *("TIDEMARK_STATE", "TIDEMARK_ENV", "TIDEMARK_DEBUG", "TIDEMARK_IVY_SETTINGS"),
    *("TIDEMARK_FAILPOINTS", "TIDEMARK_SEED"),  # of tests
}

Model = type[BaseSettings]
NAME = "NAME"
# Ends the name of a setting that says in which file a secret is, in place of the secret.
FILE = "_file"
PATHS = ("/", "./", "../")
NO_PATH = "write the path of the file that has the secret; what is set is not shown: it may be the secret"


def read_toml(path: Path, code: str) -> tuple[dict[str, Any], str]:
    """Return the tables of a file in UTF-8, with a byte order mark or without, and its text; raises TidemarkError
    `code`, with the file and the reason, where it cannot be read or is no TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), text
    except OSError as exc:
        reason = exc.strerror or str(exc)
    except UnicodeDecodeError as exc:
        reason = f"it is no text in UTF-8 (byte {exc.start})"
    except RecursionError:
        reason = "its tables or lists lie too deep in one another"
    except ValueError as exc:  # tomllib's own, and Python's of a number with thousands of digits
        reason = str(exc)
    raise TidemarkError(code, f"{path}: {reason}", "mend the file")


class SecretFile(SecretStr):
    """The text of a file, without the line break at its end; read again whenever it is asked for.

    Kubernetes and Docker mount secrets so. A file that is written anew is empty or missing for a moment: then, the
    secret is what was read last.
    """

    def __init__(self, path: str, setting: str) -> None:
        """Read the file for the first time; raises TidemarkError BAD_SETTING, with the `setting` that names the
        file."""
        # Who gives the secret itself in the place of its file must not find it in a log.
        shown, remedy = (f"{setting} {path}", "mend it") if path.startswith(PATHS) else (setting, NO_PATH)
        try:
            text = _text_of(path)
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text in UTF-8"
            raise TidemarkError("BAD_SETTING", f"{shown} cannot be read: {reason}", remedy) from None
        if not text:
            raise TidemarkError("BAD_SETTING", f"{shown} is empty", "write the secret into it")
        super().__init__(text)
        self.path = path

    def get_secret_value(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            self._secret_value = _text_of(self.path) or self._secret_value
        return self._secret_value


def _text_of(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")


def file(model: Model, path: Path) -> InitSettingsSource:
    """Return a TOML file's settings; raises TidemarkError BAD_SETTING, where it cannot be read or is no TOML;
    UNKNOWN_SETTING, with the file and the nearest name."""
    declared, _ = read_toml(path, "BAD_SETTING")
    for key, value in leaves(declared):
        _require_known(model, str(path), key)
        _require_text(f"{path}: `{key}`", value)
    tables = {name: dict(value) if isinstance(value, Mapping) else value for name, value in declared.items()}
    for key in secret_keys(model):
        section, _, name = key.rpartition(".")
        if f"{name}{FILE}" in tables.get(section, {}):
            table = tables[section]
            table[name] = _secret_file(key, table.pop(f"{name}{FILE}"), table.get(name))
    return InitSettingsSource(model, tables)


def texts(model: Model, values: Mapping[str, str]) -> tuple[InitSettingsSource, EnvSettingsSource]:
    """Return the texts by `section.key`, taken apart as pydantic-settings does with environment variables; before them,
    what they say of files with secrets. Raises TidemarkError BAD_SETTING, where such a file cannot be read, or the
    secret is given, too, or where the text of a table is no JSON."""
    for key in _open_tables(model):
        try:
            is_table = isinstance(json.loads(values.get(key, "{}")), dict)
        except (ValueError, RecursionError):
            is_table = False
        if not is_table:
            remedy = f'write {{"NAME": "VALUE"}}, or set {key}.NAME'
            raise TidemarkError("BAD_SETTING", f"{key} is no table in JSON", remedy)
    files: dict[str, dict[str, SecretFile]] = {}
    for key in secret_keys(model):
        if f"{key}{FILE}" in values:
            section, _, name = key.rpartition(".")
            files.setdefault(section, {})[name] = _secret_file(key, values[f"{key}{FILE}"], values.get(key))
    source = EnvSettingsSource(model, env_nested_delimiter=".")
    source.env_vars = {key: text for key, text in values.items() if not key.endswith(FILE)}
    return InitSettingsSource(model, files), source


def _secret_file(key: str, path: object, secret: object) -> SecretFile:
    if not isinstance(path, str):
        raise TidemarkError("BAD_SETTING", f"{key}{FILE} is no text", "write the file's path, in quotes")
    if secret:
        remedy = f"keep one of the two: {variable_of(key)} or {variable_of(key + FILE)}"
        raise TidemarkError("BAD_SETTING", f"{key} and {key}{FILE} are both set", remedy)
    return SecretFile(path, f"{key}{FILE}")


def variables(model: Model, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield `section.key` and text of every `TIDEMARK_SECTION__KEY`; raises TidemarkError UNKNOWN_SETTING or
    BAD_SETTING."""
    for name, value in environ.items():
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _require_known(model, f"variable {name}", key)
            _require_text(f"variable {name}", value)
            yield key, value


def overrides(model: Model, options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield `section.key` and text of every `section.key=text`; raises TidemarkError BAD_SETTING or UNKNOWN_SETTING,
    and BAD_ARGUMENTS as `refuse_secret`."""
    for option in options:
        refuse_secret(model, option)
        key, equals, value = (part.strip() for part in option.partition("="))
        if not equals:
            # What follows the name may be a secret.
            named = re.split(r"[^\w.-]", option)[0]
            raise TidemarkError("BAD_SETTING", f"--set {named} has no `=`", "write --set section.key=value")
        _require_known(model, "--set", key)
        _require_text(f"--set {key}", value)
        yield key, value


def refuse_secret(model: Model, word: str) -> None:
    """Refuse a word of a command line that sets a secret, however the setting's name is spelt in it; raises
    TidemarkError BAD_ARGUMENTS, with the variable that takes the secret."""
    if REFERENCE.fullmatch(word):
        return
    plain = re.sub(r"(^|\s)-D", " ", word).lower().replace("-", "_").replace("__", ".").replace(PREFIX.lower(), "")
    for key in secret_keys(model):
        section, _, name = key.rpartition(".")
        # Between the two: a dot, or what JSON has there, as in kafka={"sasl_password": …}.
        spelt = rf"(?<![a-z0-9_]){re.escape(section)}[^a-z0-9_](.*[^a-z0-9_])?{re.escape(name)}(?![a-z0-9_])"
        if re.search(spelt, plain, re.DOTALL):
            remedy = f"set the variable {variable_of(key)} instead, or {variable_of(key + FILE)} to a file that has it"
            raise TidemarkError("BAD_ARGUMENTS", f"{key} would show in the list of processes", remedy)


def variable_of(key: str) -> str:
    """Return the environment variable that sets `section.key`."""
    return PREFIX + key.upper().replace(".", "__")


def secret_keys(model: Model) -> list[str]:
    """Return every `section.key` whose type is a secret."""
    return [key for key, kind in _keys_and_types(model) if SecretStr in (kind, *get_args(kind))]


def known_keys(model: Model) -> list[str]:
    """Return every `section.key` that can be set; NAME stands where a section has tables of any name."""
    return [*(key for key, _ in _keys_and_types(model)), *(f"{key}{FILE}" for key in secret_keys(model))]


def _keys_and_types(model: Model) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        of_any_name = get_args(kind)
        section: type[BaseModel] = of_any_name[1] if of_any_name else kind
        for key, declared in section.model_fields.items():
            yield f"{name}.{NAME}.{key}" if of_any_name else f"{name}.{key}", declared.annotation


def _require_known(model: Model, origin: str, key: str) -> None:
    if any(key.startswith(f"{name}.") for name in _open_tables(model)):
        return  # what stands there is judged with its value
    between = ".".join(key.split(".")[1:-1])
    known = [name.replace(NAME, between or NAME) for name in known_keys(model)]
    if key not in known:
        raise TidemarkError("UNKNOWN_SETTING", f"{origin} names no setting: `{key}`", nearest(key, known))


def _open_tables(model: Model) -> list[str]:
    """Return every `section.key` that is a table of any names."""
    return [name for name, kind in _keys_and_types(model) if get_origin(kind) is Mapping]


def _require_text(where: str, value: object) -> None:
    if isinstance(value, str) and not is_text(value):
        raise TidemarkError("BAD_SETTING", f"{where} is no text in UTF-8, or has a NUL in it", "write another")


def leaves(table: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of tables in tables, with its names and dots between them."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{within}{key}.")
        else:
            yield within + key, value
