"""Typed objects from outside: a frozen dataclass whose fields say what they mean and what they allow.

``read`` makes one from the values of a TOML file and of the environment, and names everything that is wrong at once. A
library for it was measured at 15 MB and a quarter of a second (``docs/decisions/agent-footprint.md``), which is more
than the rest of the agent takes beside its model.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class FieldsError(ValueError):
    """Values do not make the object; ``problems`` names each, with the field that it is about."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class Text:
    """A value of the environment: text, whatever its type is to be. Lists and tables are written as JSON."""

    value: str


def Field(
    *,
    default: Any = dataclasses.MISSING,
    description: str,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    check: Callable[[Any], Any] | None = None,
    repr: bool = True,
) -> Any:
    """A field of a dataclass that `read` can make.

    Args:
        default: the value when none is given; without one the field is required.
        description: what it means, with its unit; the documents are compared with it.
        ge: smallest number that is allowed.
        gt: number that it has to be above.
        le: largest number that is allowed.
        lt: number that it has to be below.
        check: gets the value, returns it (maybe in another form) or raises ValueError with what it has to be.
        repr: whether the value may be shown; a secret may not.
    """
    bounds = [
        (text, bound, holds)
        for text, bound, holds in (
            ("at least", ge, lambda value, bound: value >= bound),
            ("more than", gt, lambda value, bound: value > bound),
            ("at most", le, lambda value, bound: value <= bound),
            ("less than", lt, lambda value, bound: value < bound),
        )
        if bound is not None
    ]
    return dataclasses.field(
        default=default, repr=repr, metadata={"description": description, "bounds": bounds, "check": check}
    )


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make an object of a dataclass whose fields are `Field`.

    Types are str, int, float (finite), bool, Path, Literal, ``X | None``, ``tuple[X, ...]``, ``dict[str, X]``, Any
    (as it comes), and other such dataclasses.

    Args:
        kind: the dataclass.
        values: by field name; a value of type `Text` comes from the environment.

    Raises:
        FieldsError: with every problem: fields that do not exist, are missing, or have a wrong value.
        ValueError: each value is right by itself, and the dataclass's own ``__post_init__`` refuses them together.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass, as said above
    problems = [f"{name}: there is no such setting" for name in values if name not in known]
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass, as the docstring asks for
        if field.name not in values:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                problems.append(f"{field.name}: it is required")
            continue
        try:
            found[field.name] = _checked(field, _value(_hint(kind, field), values[field.name]))
        except FieldsError as error:
            problems += [f"{field.name}.{problem}" for problem in error.problems]
        except ValueError as error:
            problems.append(f"{field.name}: {error}")
    if problems:
        raise FieldsError(problems)
    return kind(**found)


def _hint(kind: type, field: dataclasses.Field[Any]) -> Any:
    """The type of a field; only of those that are given, since a hundred take as long to evaluate as to import."""
    if not isinstance(field.type, str):
        return field.type
    home = next(base for base in kind.__mro__ if field.name in inspect.get_annotations(base))
    return eval(field.type, vars(sys.modules[home.__module__]))


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    if value is None:
        return value
    for text, bound, holds in field.metadata.get("bounds", ()):
        if not holds(value, bound):
            raise ValueError(f"it has to be {text} {bound}, not {value}")
    check = field.metadata.get("check")
    return value if check is None else check(value)


def _value(hint: Any, value: Any) -> Any:
    """The value as the type that a hint names.

    Raises:
        ValueError: it is none.
    """
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _value(inner, value)
    if origin is Literal:
        plain = value.value if isinstance(value, Text) else value
        if plain not in arguments:
            raise ValueError(f"it has to be one of {', '.join(map(str, arguments))}, not {plain!r}")
        return plain
    if origin is tuple or origin is dict or dataclasses.is_dataclass(hint):
        return _compound(hint, origin, arguments, _json(value.value) if isinstance(value, Text) else value)
    return _SIMPLE[hint](value)


def _compound(hint: Any, origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"it has to be a list, not {value!r}")
        return tuple(_value(arguments[0], item) for item in value)
    if not isinstance(value, Mapping):
        raise ValueError(f"it has to be a table, not {value!r}")
    if origin is dict:
        return {str(name): _value(arguments[1], item) for name, item in value.items()}
    return read(hint, value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"in the environment it has to be JSON: {error}") from error


def _str(value: Any) -> str:
    plain = value.value if isinstance(value, Text) else value
    if not isinstance(plain, str):
        raise ValueError(f"it has to be a text, not {plain!r}")
    return plain


def _bool(value: Any) -> bool:
    if isinstance(value, Text):
        if value.value.lower() not in (*_TRUE, *_FALSE):
            raise ValueError(f"it has to be true or false, not {value.value!r}")
        return value.value.lower() in _TRUE
    if not isinstance(value, bool):
        raise ValueError(f"it has to be true or false, not {value!r}")
    return value


def _int(value: Any) -> int:
    plain = _number(value, int, "a whole number")
    if not isinstance(plain, int):
        raise ValueError(f"it has to be a whole number, not {plain!r}")
    return plain


def _float(value: Any) -> float:
    plain = float(_number(value, float, "a number"))
    if not math.isfinite(plain):
        raise ValueError(f"it has to be a finite number, not {plain}")
    return plain


def _number(value: Any, kind: Callable[[str], float], what: str) -> float:
    plain = value
    if isinstance(value, Text):
        try:
            return kind(value.value)
        except ValueError:
            plain = value.value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ValueError(f"it has to be {what}, not {plain!r}")
    return plain


_SIMPLE: Mapping[Any, Callable[[Any], Any]] = {
    str: _str,
    bool: _bool,
    int: _int,
    float: _float,
    Any: lambda value: value,
    Path: lambda value: value if isinstance(value, Path) else Path(_str(value)),
}
