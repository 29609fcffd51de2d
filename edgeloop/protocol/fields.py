"""Kinds of message fields: each checks a value from the network and says the same as JSON Schema.

Reading and writing go through the same kinds, so a program cannot send what it would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.topics import NAME_PATTERN
from edgeloop.records import dataclass

MAX_INTEGER = 2**63 - 1


@lru_cache(maxsize=16_384)
def _matches(pattern: str, value: str) -> bool:
    """Whether a text matches as a whole; the names of devices come again and again."""
    return re.fullmatch(pattern, value) is not None


class Kind(Protocol):
    """One kind of field."""

    def read(self, value: Any, where: str) -> Any:
        """Return the value for the dataclass; raises ProtocolError."""

    def write(self, value: Any, where: str) -> Any:
        """Return the value for the codec; raises ProtocolError."""

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""


class _Checked:
    """A kind whose value is the same on both sides."""

    def read(self, value: Any, where: str) -> Any:
        raise NotImplementedError

    def write(self, value: Any, where: str) -> Any:
        return self.read(value, where)


@dataclass(frozen=True)
class Text(_Checked):
    """Text of at most ``most`` characters that matches ``pattern`` as a whole, where there is one."""

    most: int = 256
    pattern: str | None = None

    def read(self, value: Any, where: str) -> str:
        """Check one value."""
        if not isinstance(value, str):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be text")
        if len(value) > self.most:
            raise ProtocolError(f"{where} has {len(value)} characters; at most {self.most} are read")
        if self.pattern is not None and not _matches(self.pattern, value):
            raise ProtocolError(f"{where} is {value!r}; it has to match {self.pattern}")
        return value

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        bounds: dict[str, Any] = {"type": "string", "maxLength": self.most}
        return bounds if self.pattern is None else {**bounds, "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True)
class Integer(_Checked):
    """An integer in ``least … most``, both included."""

    least: int = 0
    most: int = MAX_INTEGER

    def read(self, value: Any, where: str) -> int:
        """Check one value."""
        if type(value) is not int and (not isinstance(value, int) or isinstance(value, bool)):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be an integer")
        if not self.least <= value <= self.most:
            raise ProtocolError(f"{where} is {value}; it has to be in {self.least} … {self.most}")
        return value

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Real(_Checked):
    """A finite number in ``least … most``, both included; the codec has refused what is not finite."""

    least: float
    most: float

    def read(self, value: Any, where: str) -> float:
        """Check one value."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be a number")
        if not self.least <= value <= self.most:
            raise ProtocolError(f"{where} is {value}; it has to be in {self.least} … {self.most}")
        return float(value)

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Boolean(_Checked):
    """True or false."""

    def read(self, value: Any, where: str) -> bool:
        """Check one value."""
        if not isinstance(value, bool):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be true or false")
        return value

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Octets(_Checked):
    """A byte string of at most ``most`` bytes."""

    most: int

    def read(self, value: Any, where: str) -> bytes:
        """Check one value."""
        if not isinstance(value, bytes):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be a byte string")
        if len(value) > self.most:
            raise ProtocolError(f"{where} has {len(value)} bytes; at most {self.most} are read")
        return value

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "string", "format": "binary", "maxLength": self.most}


@dataclass(frozen=True)
class Plain(_Checked):
    """A map whose contents another layer checks; the codec has bounded its size and depth."""

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Check one value."""
        if type(value) is dict:
            return value
        if not isinstance(value, Mapping):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be a map")
        return dict(value)

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "object"}


@dataclass(frozen=True)
class Nullable:
    """Another kind, or null."""

    kind: Kind

    def read(self, value: Any, where: str) -> Any:
        """Check one value."""
        return None if value is None else self.kind.read(value, where)

    def write(self, value: Any, where: str) -> Any:
        """Check one value."""
        return None if value is None else self.kind.write(value, where)

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"oneOf": [self.kind.schema(), {"type": "null"}]}


@dataclass(frozen=True)
class ListOf:
    """Up to ``most`` values of one kind; a tuple on this side."""

    kind: Kind
    most: int

    def read(self, value: Any, where: str) -> tuple[Any, ...]:
        """Check one value."""
        return tuple(self.kind.read(item, f"{where}[{i}]") for i, item in enumerate(self._bounded(value, where)))

    def write(self, value: Any, where: str) -> list[Any]:
        """Check one value."""
        return [self.kind.write(item, f"{where}[{i}]") for i, item in enumerate(self._bounded(value, where))]

    def _bounded(self, value: Any, where: str) -> list[Any] | tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be a list")
        if len(value) > self.most:
            raise ProtocolError(f"{where} has {len(value)} items; at most {self.most} are read")
        return value

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "array", "maxItems": self.most, "items": self.kind.schema()}


@dataclass(frozen=True)
class Pair:
    """A list of exactly two values of two kinds; a tuple on this side."""

    first: Kind
    second: Kind

    def read(self, value: Any, where: str) -> tuple[Any, Any]:
        """Check one value."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ProtocolError(f"{where} has to be a list of two values")
        return self.first.read(value[0], f"{where}[0]"), self.second.read(value[1], f"{where}[1]")

    def write(self, value: Any, where: str) -> list[Any]:
        """Check one value."""
        return list(self.read(value, where))

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        items = [self.first.schema(), self.second.schema()]
        return {"type": "array", "minItems": 2, "maxItems": 2, "prefixItems": items}


@dataclass(frozen=True)
class Either(_Checked):
    """The first of two plain kinds that takes the value."""

    first: Kind
    second: Kind

    def read(self, value: Any, where: str) -> Any:
        """Check one value."""
        try:
            return self.first.read(value, where)
        except ProtocolError:
            return self.second.read(value, where)

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"oneOf": [self.first.schema(), self.second.schema()]}


@dataclass(frozen=True)
class MapOf:
    """A map from text to one kind, with up to ``most`` entries."""

    kind: Kind
    most: int

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Check one value."""
        return {key: self.kind.read(item, f"{where}.{key}") for key, item in self._bounded(value, where).items()}

    def write(self, value: Any, where: str) -> dict[str, Any]:
        """Check one value."""
        return {key: self.kind.write(item, f"{where}.{key}") for key, item in self._bounded(value, where).items()}

    def _bounded(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be a map")
        if len(value) > self.most:
            raise ProtocolError(f"{where} has {len(value)} entries; at most {self.most} are read")
        return value

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema."""
        return {"type": "object", "maxProperties": self.most, "additionalProperties": self.kind.schema()}


NAME = Text(64, NAME_PATTERN)
"""Of a device or a channel: a level of a topic."""
DIGEST = Text(71, "sha256:[0-9a-f]{64}")
COUNT = Integer()
SEQUENCE = Integer(least=1)
SENTENCE = Text(2000)
CLOCK = Real(-1e12, 1e12)
"""Unix seconds; a device whose clock is at 1970 or beyond 2038 still speaks."""
PREDICTION = Text(128)
"""Id of a prediction."""
SHARE = Real(0.0, 1.0)
LABEL = Either(Integer(0, 1 << 31), Text(256))
"""A class's index, or its name."""
