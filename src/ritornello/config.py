"""Frozen dataclasses of JSON values, and back.

A config says what something *is*; `config.json` in a run folder is one, written out in full. Unknown
keys are refused with the nearest known one, and every value is checked against the field's type.

A dataclass whose field is `dict[str, Base]` may define `member(field, key) -> type` to say which
class stands behind each key (the model's mixers do).
"""

import dataclasses
import json
import tomllib
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ritornello.errors import InputError, unknown

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """Dataclasses, tuples, dicts and paths as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass `cls` from plain values.

    Raises InputError for an unknown key, a missing one, or a value of the wrong type; `where` is the
    dotted path that the message begins with.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where or cls.__name__}: expected a table of {cls.__name__}, found {data!r}")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in fields:
            raise unknown("field", f"{where}.{key}" if where else key, [f"{where}.{name}" if where else name for name in fields])
        member = getattr(cls, "member", None) if get_origin(hints[key]) is dict else None
        path = f"{where}.{key}" if where else key
        if member is None:
            values[key] = _value(hints[key], value, path)
        else:
            if not isinstance(value, dict):
                raise InputError(f"{path}: expected a table, found {value!r}")
            values[key] = {name: from_dict(member(key, name), item, f"{path}.{name}") for name, item in value.items()}
    missing = [name for name, field in fields.items() if name not in values and _required(field)]
    if missing:
        raise InputError(f"{where or cls.__name__}: missing {', '.join(missing)}")
    return cls(**values)


def override(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """A copy of nested plain values with each `a.b=c` applied; c is read as JSON, else as a string."""
    data = json.loads(json.dumps(data))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(f"override {assignment!r}: expected the form a.b=c")
        table, *rest = data, *path.split(".")
        for name in rest[:-1]:
            if not isinstance(table, dict) or not isinstance(table.setdefault(name, {}), dict):
                raise InputError(f"override {assignment!r}: {name!r} is a value, not a table")
            table = table[name]
        try:
            table[rest[-1]] = json.loads(text)
        except json.JSONDecodeError:
            table[rest[-1]] = text
    return data


def dotted(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain values by their dotted names, as `override` takes them: {"train.lr": 0.003}. An empty table is a value."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


def differences(*tables: dict[str, Any]) -> dict[str, list[Any]]:
    """The dotted names whose values are not the same in all tables, and the value in each; None where a table has no such name."""
    flat = [dotted(table) for table in tables]
    names = dict.fromkeys(name for table in flat for name in table)
    values = {name: [table.get(name) for table in flat] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def read_file(path: Path) -> dict[str, Any]:
    """The table in a .json or .toml file."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not readable: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path}: not readable: nested too deeply") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a table, found {type(data).__name__}")
    return data


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        if value is None and type(None) in args:
            return None
        return _value(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is Literal:
        if value not in args:
            raise unknown(where, str(value), [str(arg) for arg in args])
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {str(key): _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    kind = origin or hint
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{where}: expected {getattr(kind, '__name__', kind)}, found {value!r}")
