"""``dataclass`` as the standard library has it, made in a fifth of the time: a process that makes a hundred notices.

The standard library writes and compiles six functions for each frozen class before anything is known of its use, which
was measured at 0.7 to 1.3 ms a class, and at 93 ms of an agent's start (``docs/decisions/agent-footprint.md``). Here
classes share the functions, but for ``__init__``, which is compiled when more than a few objects are made, so that they
are then made as quickly as ever.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

#: Objects that are made before ``__init__`` is compiled: that takes as long as making a hundred without.
FEW = 8

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, repr=True, kw_only=False):
        """Make a class a dataclass, as `dataclasses.dataclass` does; other options of it are not known here."""

        def wrap(cls):
            own = vars(cls)
            methods = {"__init__": _first_init(cls, frozen)}
            if repr and "__repr__" not in own:
                methods["__repr__"] = _repr
            if eq and "__eq__" not in own:
                methods["__eq__"] = _eq
                if "__hash__" not in own:
                    methods["__hash__"] = _hash if frozen else None
            if frozen:
                methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
            dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
            for name, method in methods.items():
                setattr(cls, name, method)
            return cls

        return wrap if cls is None else wrap(cls)


def _first_init(cls: type, frozen: bool) -> Any:
    """``__init__`` of the first few objects; then it compiles the real one, and leaves it in its place."""
    made = 0

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal made
        made += 1
        if made > FEW or not _filled(self, args, kwargs):
            compiled = _compiled_init(cls, frozen)
            cls.__init__ = compiled  # type: ignore[misc]  # two threads compile the same
            compiled(self, *args, **kwargs)

    return __init__


def _filled(record: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Set the fields of a plain case; what is not plain, or wrong, is left to the compiled one, which says what."""
    if hasattr(record, "__post_init__"):
        return False
    by_position, used, found = iter(args), 0, {}
    for field in dataclasses.fields(record):
        name, value = field.name, dataclasses.MISSING
        if field.init and not field.kw_only:
            value = next(by_position, value)
        if field.init and value is dataclasses.MISSING:
            value = kwargs.get(name, value)
        used += value is not dataclasses.MISSING
        if value is dataclasses.MISSING:
            value = field.default
        if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if value is dataclasses.MISSING:
            return False
        found[name] = value
    if used != len(args) + len(kwargs):
        return False
    record.__dict__.update(found)
    return True


def _compiled_init(cls: type, frozen: bool) -> Any:
    names: dict[str, Any] = {"_missing": dataclasses.MISSING, "_set": object.__setattr__}
    positional: list[str] = ["self"]
    named: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(cls):
        value = name = field.name
        if field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            parameter = f"{name}=_default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = field.default_factory
            parameter, value = f"{name}=_missing", f"_make_{name}() if {name} is _missing else {name}"
        else:
            parameter = name
        if field.init:
            (named if field.kw_only else positional).append(parameter)
        elif "=" not in parameter:
            continue  # __post_init__ sets it
        else:
            value = f"_default_{name}" if f"_default_{name}" in names else f"_make_{name}()"
        body.append(f" _set(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    parameters = ", ".join([*positional, *(["*", *named] if named else [])])
    exec("\n".join([f"def __init__({parameters}):", *(body or [" pass"])]), names)
    names["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return names["__init__"]


def _values(record: Any) -> tuple[Any, ...]:
    return tuple([getattr(record, field.name) for field in dataclasses.fields(record) if field.compare])


def _eq(self: Any, other: Any) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"field {name!r} of a frozen {self.__class__.__qualname__} cannot be changed")
