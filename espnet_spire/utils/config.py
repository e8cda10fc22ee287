"""A YAML file as a dataclass: unknown keys and wrong types are errors."""

from dataclasses import fields
from typing import Any, Optional, Type, TypeVar

import yaml

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

T = TypeVar("T")


def read_yaml(path: PathLike) -> Any:
    """What a YAML file holds; a missing or broken one is an error that names it."""
    try:
        with open(path, encoding="utf-8") as stream:
            return yaml.safe_load(stream)
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpireError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def read_config(path: Optional[PathLike], kind: Type[T]) -> T:
    """Read ``path`` into ``kind``; without a path, its defaults.

    Args:
        kind: a dataclass with a default for every field. The defaults say what types are right;
            ``__post_init__`` may raise :class:`SpireError` for values that are not.

    Raises:
        SpireError: it names the file and the key.
    """
    if path is None:
        return kind()
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise SpireError(f"{path}: 'key: value' lines were expected, not {str(values)[:40]!r}")
    known = [field.name for field in fields(kind)]
    defaults = kind()
    for key, value in values.items():
        if key not in known:
            raise SpireError(f"{path}: unknown key {key!r}; known are {', '.join(known)}")
        default = getattr(defaults, key)
        if isinstance(default, float):
            values[key] = _number(value)
        if default is not None and type(values[key]) is not type(default):
            raise SpireError(f"{path}: {key}: {value!r} is not a {type(default).__name__}")
    try:
        return kind(**values)
    except SpireError as error:
        raise SpireError(f"{path}: {error}") from None


def _number(value: Any) -> Any:
    """A float where it is meant as one: YAML 1.1 reads 1e-3 as a word and 1 as an integer."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return value
    try:
        return float(value)
    except ValueError:
        return value
