"""Parts and messages: frozen dataclasses that check their fields and keep the ones that they do not know.

A field is ``Annotated[type, kind]`` with a kind of :mod:`edgeloop.protocol.fields`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Self, get_type_hints

from edgeloop.protocol.codec import MAX_BYTES, decode, encode
from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.fields import Kind
from edgeloop.records import dataclass


@dataclass(frozen=True)
class PartOf:
    """A part with fields of its own."""

    part: type[Part]

    def read(self, value: Any, where: str) -> Part:
        """Check one value."""
        return self.part.from_wire(value, where)

    def write(self, value: Any, where: str) -> dict[str, Any]:
        """Check one value."""
        if not isinstance(value, self.part):
            raise ProtocolError(f"{where} is a {type(value).__name__}; it has to be a {self.part.__name__}")
        return value.to_wire(where)

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema: a reference to the part's own schema."""
        return {"$ref": f"#/components/schemas/{self.part.__name__}"}


@dataclass(frozen=True)
class Part:
    """A group of fields. ``extra`` holds the fields that this version does not know; they are written back."""

    extra: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def from_wire(cls, value: Any, where: str = "") -> Self:
        """Read the part from a decoded map.

        Raises:
            ProtocolError: a field is missing, of a wrong type or out of its bounds.
        """
        if type(value) is not dict and not isinstance(value, Mapping):  # the first is what the codec gives, and quick
            raise ProtocolError(f"{where or cls.__name__} is a {type(value).__name__}; it has to be a map")
        rest = dict(value)
        read: dict[str, Any] = {}
        fields = wire_fields(cls)
        for name, (kind, required) in fields.items():
            if name in rest:
                found = rest.pop(name)
                try:
                    read[name] = kind.read(found, name)
                except ProtocolError:
                    kind.read(found, f"{where or cls.__name__}.{name}")  # says the whole name
                    raise
            elif required:
                raise ProtocolError(f"{where or cls.__name__}.{name} is missing")
        if len(read) < len(fields):
            return cls(**read, extra=rest)
        return cls.of_fields(read, rest)

    @classmethod
    def of_fields(cls, fields: dict[str, Any], extra: Mapping[str, Any] | None = None) -> Self:
        """The part with these fields, all of them, which were checked; the map becomes the part's own."""
        part = cls.__new__(cls)  # as __init__ would; setting each field of a frozen object takes five times as long
        fields["extra"] = {} if extra is None else extra
        object.__setattr__(part, "__dict__", fields)
        return part

    def to_wire(self, where: str = "") -> dict[str, Any]:
        """The part as a map for the codec.

        Raises:
            ProtocolError: a field of this object breaks its own rule.
        """
        where = where or type(self).__name__
        own = wire_fields(type(self))
        written = {name: value for name, value in self.extra.items() if name not in own}
        for name, (kind, _) in own.items():
            written[name] = kind.write(getattr(self, name), f"{where}.{name}")
        return written


@dataclass(frozen=True)
class Message(Part):
    """A whole payload. ``max_bytes`` is the longest that is written and read of this message."""

    max_bytes: ClassVar[int] = MAX_BYTES

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a payload.

        Raises:
            ProtocolError: the bytes are not such a message.
        """
        return cls.from_wire(decode(data, cls.max_bytes))

    def to_bytes(self) -> bytes:
        """The payload.

        Raises:
            ProtocolError: a field of this object breaks its own rule, or the payload is too large.
        """
        return encode(self.to_wire(), self.max_bytes)


_known: dict[type[Part], dict[str, tuple[Kind, bool]]] = {}


def wire_fields(part: type[Part]) -> dict[str, tuple[Kind, bool]]:
    """Name → (kind, required) of a part's own fields, in order."""
    found = _known.get(part)
    if found is None:
        hints = get_type_hints(part, include_extras=True)
        found = {
            item.name: (hints[item.name].__metadata__[0], _has_no_default(item))
            for item in dataclasses.fields(part)
            if item.name != "extra"
        }
        _known[part] = found
    return found


def _has_no_default(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def schema_of(part: type[Part]) -> dict[str, Any]:
    """A part's JSON Schema; fields that are not named in it are allowed and kept."""
    fields = wire_fields(part)
    return {
        "type": "object",
        "required": [name for name, (_, required) in fields.items() if required],
        "properties": {name: kind.schema() for name, (kind, _) in fields.items()},
    }
