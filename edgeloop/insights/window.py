"""A window: the insights of one release on one device over one interval, or of many merged. Sums only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field, replace
from typing import Any

import numpy as np

from edgeloop.insights import newer
from edgeloop.insights.aspects import counts as places
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array
from edgeloop.insights.sums import Sums
from edgeloop.insights.wire import (
    ARRAY_FIELDS,
    MAX_DEVICE_COUNT,
    MAX_STORED_COUNT,
    added,
    arrays_from_wire,
    arrays_to_wire,
)
from edgeloop.protocol.codec import decode, encode
from edgeloop.protocol.errors import ProtocolError
from edgeloop.records import dataclass

MIXED = "mixed"
MAX_TEXT, MAX_SEGMENT = 128, 64
#: Unix seconds; the year 5138. A clock at 1970 is believed here: the hub notes the skew.
MAX_TIME = 1e11
#: A merged window: 15 MiB of head statistics, a confusion matrix of 8 MiB and the rest.
MAX_STORED_BYTES = 64 << 20
_PLAIN = ("release", "variant", "provider", "start", "end", "schema", "extra", "segment")
_KNOWN = ("v", "release", "variant", "provider", "segment", "start", "end", *ARRAY_FIELDS)


@dataclass(eq=False)
class Window:
    """Insights as sums. Merging is addition: associative and commutative with :meth:`zero` as its zero.

    Counts add exactly. float64 sums add as float64 does: in another order of merging the last bits may differ.
    Two windows merge when they are of one release and of one segment; a zero window, without a release, with any.

    Attributes:
        release: digest of the release, ``sha256:…``; empty in a zero window.
        variant: the package's variant, or ``mixed``.
        provider: the execution provider, or ``mixed``.
        start: unix seconds, by the device's clock.
        end: unix seconds, by the device's clock.
        schema: which arrays there are.
        arrays: the sums by name, as ``schema.arrays`` says; counted in place by an `Observer`. What nothing was added
            to is not in it and reads as zeros.
        extra: fields of a newer sender, kept as they came.
        segment: which part of the traffic this is (a camera, a line, a shift); "" when it is not divided.
        unknown: arrays of a newer sender, int64 or float64 [size]; they add up like those that are known.
    """

    release: str
    variant: str
    provider: str
    start: float
    end: float
    schema: WindowSchema
    arrays: Sums
    extra: dict[str, Any] = field(default_factory=dict)
    segment: str = ""
    unknown: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def zero(
        cls,
        schema: WindowSchema,
        release: str = "",
        variant: str = "",
        provider: str = "",
        start: float = 0.0,
        end: float = 0.0,
        segment: str = "",
    ) -> Window:
        """A window that has counted nothing."""
        return cls(release, variant, provider, float(start), float(end), schema, Sums(schema), segment=segment)

    @property
    def predictions(self) -> int:
        """Rows that were answered."""
        return int(self.arrays["counts"][places.PREDICTIONS])

    @property
    def errors(self) -> int:
        """Requests that failed through the model's or the agent's fault."""
        return int(self.arrays["counts"][places.ERRORS])

    @property
    def feedback(self) -> int:
        """Labels for earlier predictions."""
        return int(self.arrays["counts"][places.FEEDBACK])

    @property
    def escalations(self) -> int:
        """Inputs sent to the hub's teacher."""
        return int(self.arrays["counts"][places.ESCALATIONS])

    @property
    def nonfinite(self) -> int:
        """Predictions that hold a number that is not finite."""
        return int(self.arrays["counts"][places.NONFINITE])

    def copy(self) -> Window:
        """An independent copy."""
        unknown = {name: array.copy() for name, array in self.unknown.items()}
        return replace(self, arrays=self.arrays.copy(), extra=dict(self.extra), unknown=unknown)

    def only(self, names: Collection[str]) -> Window:
        """A copy with these arrays alone, of those that the schema knows; what was not known is gone as well."""
        arrays = Sums(self.schema)
        for name in self.arrays.keys() & set(names):
            arrays[name] = self.arrays[name].copy()
        return replace(self, arrays=arrays, extra={}, unknown={})

    def without_segment(self) -> Window:
        """A copy that merges with the windows of other segments."""
        return replace(self.copy(), segment="")

    def merge(self, other: Window) -> Window:
        """The sum of both; neither is changed.

        Raises:
            InsightsError: they are of different releases, segments or shapes, or the sum leaves the range of a count.
        """
        if self.schema is not other.schema and self.schema != other.schema:
            raise InsightsError(f"windows of different shapes do not merge: {self.schema} and {other.schema}")
        if self.release and other.release and self.release != other.release:
            raise InsightsError(f"windows of different releases do not merge: {self.release} and {other.release}")
        if self.release and other.release and self.segment != other.segment:
            raise InsightsError(
                f"windows of different segments do not merge: {self.segment!r} and {other.segment!r}; add them up "
                "without_segment()"
            )
        start, end = _span(self, other)
        return Window(
            self.release or other.release,
            _same(self.variant, other.variant),
            _same(self.provider, other.provider),
            start,
            end,
            self.schema,
            _add(self.arrays, other.arrays),
            newer.merge_fields(self.extra, other.extra),
            _segment_of(self, other),
            newer.merge_arrays(self.unknown, other.unknown),
        )

    def to_wire(self) -> dict[str, Any]:
        """The window as a map of plain values; see `edgeloop.insights.wire` for what stands for its arrays."""
        return {
            **self.extra,
            "release": self.release,
            "variant": self.variant,
            "provider": self.provider,
            **({"segment": self.segment} if self.segment else {}),
            "start": self.start,
            "end": self.end,
            **arrays_to_wire(self._in_order()),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any], schema: WindowSchema) -> Window:
        """A device's window, checked before anything of it is used.

        Args:
            wire: what :meth:`to_wire` gave, from anybody.
            schema: of the release that ``wire["release"]`` names.

        Raises:
            InsightsError: wrong types or sizes, absurd or contradicting numbers.
        """
        return _from_wire(wire, schema, MAX_DEVICE_COUNT)

    def to_bytes(self) -> bytes:
        """The window for a row of a database."""
        return encode(self.to_wire(), MAX_STORED_BYTES)

    @classmethod
    def from_bytes(cls, data: bytes, schema: WindowSchema) -> Window:
        """A window that :meth:`to_bytes` stored; a merged one may hold more than a device may send.

        Raises:
            InsightsError: the bytes are damaged or of another schema.
        """
        try:
            wire = decode(bytes(data), MAX_STORED_BYTES)
        except ProtocolError as error:
            raise InsightsError(f"the stored window is damaged: {error}. Restore the database from a backup") from error
        return _from_wire(wire, schema, MAX_STORED_COUNT)

    def _in_order(self) -> dict[str, Array]:
        known = {name: self.arrays[name] for name in self.schema.arrays if name in self.arrays}
        return known | {name: self.unknown[name] for name in sorted(self.unknown)}

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same to the last bit."""
        if not isinstance(other, Window):
            return NotImplemented
        return (
            all(getattr(self, name) == getattr(other, name) for name in _PLAIN)
            and all(_equal(self.arrays, other.arrays, name) for name in {*self.arrays, *other.arrays})
            and self.unknown.keys() == other.unknown.keys()
            and all(np.array_equal(array, other.unknown[name]) for name, array in self.unknown.items())
        )

    __hash__ = None  # type: ignore[assignment]  # its arrays change while it counts


def _from_wire(wire: Mapping[str, Any], schema: WindowSchema, max_count: int) -> Window:
    if not isinstance(wire, Mapping):
        raise InsightsError(f"the window is a {type(wire).__name__}; it has to be a map")
    extra = newer.fields_of(wire, _KNOWN)
    arrays, others = arrays_from_wire(wire, schema, max_count)
    return Window(
        _text(wire, "release"),
        _text(wire, "variant"),
        _text(wire, "provider"),
        _time(wire, "start"),
        _time(wire, "end"),
        schema,
        arrays,
        extra,
        _segment(wire),
        newer.arrays_of(others, max_count),
    )


def _text(wire: Mapping[str, Any], key: str) -> str:
    value = wire.get(key, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value.isprintable() and value.isascii()):
        raise InsightsError(f"the window's {key} is not a printable text of at most {MAX_TEXT} ASCII characters")
    return value


def _segment(wire: Mapping[str, Any]) -> str:
    value = wire.get("segment", "")
    if not isinstance(value, str) or len(value) > MAX_SEGMENT or not value.isprintable():
        raise InsightsError(f"the window's segment is not a printable text of at most {MAX_SEGMENT} characters")
    return value


def _time(wire: Mapping[str, Any], key: str) -> float:
    value = wire.get(key, 0.0)
    if type(value) not in (int, float) or not abs(value) <= MAX_TIME:  # not: NaN compares false
        raise InsightsError(f"the window's {key} is {value!r:.40}; it has to be unix seconds")
    return float(value)


def _add(one: Sums, other: Sums) -> Sums:
    """The sum of both, which shares no memory with either; what neither has counted is not in it."""
    total = Sums(one.schema)
    for name, array in one.items():
        more = other.get(name)
        total[name] = array.copy() if more is None else added(name, array, more)
    for name, array in other.items():
        if name not in total:
            total[name] = array.copy()
    return total


def _equal(one: Sums, other: Sums, name: str) -> bool:
    """Whether both have the same sums there; what is not in one of them is zero."""
    mine, theirs = one.get(name), other.get(name)
    if mine is None or theirs is None:
        return not any(array.any() for array in (mine, theirs) if array is not None)
    return np.array_equal(mine, theirs)


def _span(one: Window, other: Window) -> tuple[float, float]:
    if _timeless(one):
        return other.start, other.end
    if _timeless(other):
        return one.start, one.end
    return min(one.start, other.start), max(one.end, other.end)


def _segment_of(one: Window, other: Window) -> str:
    if bool(one.release) != bool(other.release):
        return one.segment if one.release else other.segment
    return one.segment if one.segment == other.segment else ""


def _timeless(window: Window) -> bool:
    return not window.release and window.start == 0.0 and window.end == 0.0


def _same(one: str, other: str) -> str:
    if not one or not other or one == other:
        return one or other
    return MIXED
