"""A YAML file as a dataclass: unknown keys and wrong types are errors."""

from dataclasses import fields
from typing import Optional, Type, TypeVar

import yaml

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

T = TypeVar("T")


def read_config(path: Optional[PathLike], kind: Type[T]) -> T:
    """Read ``path`` into ``kind``; without a path, its defaults."""
    if path is None:
        return kind()
    try:
        with open(path, encoding="utf-8") as stream:
            values = yaml.safe_load(stream) or {}
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise SpireError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SpireError(f"{path}: 'key: value' lines were expected, not {str(values)[:40]!r}")
    known = {field.name: field for field in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise SpireError(f"{path}: unknown key {key!r}; known are {', '.join(known)}")
        default = getattr(kind(), key)
        if isinstance(default, float) and isinstance(value, int):
            values[key] = float(value)
        elif default is not None and type(values[key]) is not type(default):
            raise SpireError(f"{path}: {key}: {value!r} is not a {type(default).__name__}")
    return kind(**values)
