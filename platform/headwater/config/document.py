"""The parts of a TOML document: tables whose keys are known, values of their type. Each error names its place."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.errors import ConfigError

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def parse(path: Path) -> dict[str, Any]:
    """The whole file. ConfigError when it is not TOML, or cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file is not valid TOML: {error}", where=str(path), todo="Mend that place.") from error
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def table(given: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """The table under a key; an empty one when it is not there."""
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be a table", where=str(path), todo=f"Write it as [{key}].")
    return value


def nearest(key: str, keys: Iterable[str]) -> str:
    """A sentence that asks whether the nearest of these keys was meant; empty when none is near."""
    close = difflib.get_close_matches(key, list(keys), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def known(given: Mapping[str, Any], keys: Iterable[str], path: Path, section: str) -> None:
    """ConfigError for a key of ``given`` that is none of these: a misspelt limit must not become the default."""
    keys = tuple(keys)
    for key in given:
        if key not in keys:
            raise ConfigError(
                f"unknown key {key!r}" + (f" in [{section}]" if section else ""),
                where=str(path),
                todo=nearest(key, keys) or f"Known keys: {', '.join(keys)}.",
            )


def typed(value: Any, kind: type, key: str, path: str) -> Any:
    """``value`` as ``kind``. Text is parsed (the environment holds text); a bool is never an int."""
    try:
        if isinstance(value, str) and kind in (int, float):
            return kind(value.replace("_", ""))
        if kind is float and type(value) in (int, float):
            return float(value)
        if type(value) is kind:
            return value
    except ValueError:
        pass
    raise ConfigError(f"{key} = {value!r} is not {_KINDS[kind]}", where=path, todo="Mend the value.")


def one_of(words: Sequence[str], given: Mapping[str, Any], key: str, section: str, path: Path) -> str:
    """The value of a key that takes one of these words, the first by default."""
    value = given.get(key, words[0])
    if value not in words:
        todo = f"Use {', '.join(words[:-1])} or {words[-1]}."
        raise ConfigError(f"{key} = {value!r} in [{section}]", where=str(path), todo=todo)
    return str(value)


def number(given: Mapping[str, Any], key: str, default: float, least: int, section: str, path: Path) -> float:
    """A number of seconds or bytes, as the key's unit says."""
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        unit = "seconds" if key.endswith("_s") else "bytes"
        raise ConfigError(f"{key} = {value!r} in [{section}]", where=str(path), todo=f"Use {unit}, {least} or more.")
    return float(value)
