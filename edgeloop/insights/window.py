"""A window: the insights of one release on one device over one interval, or of many merged. Sums only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import cbor2
import numpy as np

from edgeloop.insights.aspects import counts as places
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array
from edgeloop.insights.wire import MAX_DEVICE_COUNT, MAX_STORED_COUNT, arrays_from_wire, arrays_to_wire
from edgeloop.protocol.codec import decode, encode
from edgeloop.protocol.errors import ProtocolError
from edgeloop.records import dataclass

MIXED = "mixed"
MAX_TEXT = 128
#: Unix seconds; the year 5138. A clock at 1970 is believed here: the hub notes the skew.
MAX_TIME = 1e11
MAX_EXTRA_KEYS, MAX_EXTRA_BYTES = 16, 4096
#: A merged window: 15 MiB of head statistics, a confusion matrix of 8 MiB and the rest.
MAX_STORED_BYTES = 64 << 20
_KNOWN = ("release", "variant", "provider", "start", "end", "arrays")


@dataclass(eq=False)
class Window:
    """Insights as sums. Merging is addition: associative and commutative with :meth:`zero` as its zero.

    Counts add exactly. float64 sums add as float64 does: in another order of merging the last bits may differ.

    Attributes:
        release: digest of the release, ``sha256:…``; empty in a zero window.
        variant: the package's variant, or ``mixed``.
        provider: the execution provider, or ``mixed``.
        start: unix seconds, by the device's clock.
        end: unix seconds, by the device's clock.
        schema: which arrays there are.
        arrays: the sums by name, as ``schema.arrays`` says; counted in place by an `Observer`.
        extra: fields of a newer sender, kept as they came.
    """

    release: str
    variant: str
    provider: str
    start: float
    end: float
    schema: WindowSchema
    arrays: dict[str, Array]
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def zero(
        cls,
        schema: WindowSchema,
        release: str = "",
        variant: str = "",
        provider: str = "",
        start: float = 0.0,
        end: float = 0.0,
    ) -> Window:
        """A window that has counted nothing."""
        arrays: dict[str, Array] = {name: np.zeros(spec.shape, spec.dtype) for name, spec in schema.arrays.items()}
        return cls(release, variant, provider, float(start), float(end), schema, arrays)

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
        return Window(
            self.release,
            self.variant,
            self.provider,
            self.start,
            self.end,
            self.schema,
            {name: array.copy() for name, array in self.arrays.items()},
            dict(self.extra),
        )

    def merge(self, other: Window) -> Window:
        """The sum of both; neither is changed.

        Raises:
            InsightsError: they are of different releases or shapes, or the sum leaves the range of a count.
        """
        if self.schema != other.schema:
            raise InsightsError(f"windows of different shapes do not merge: {self.schema} and {other.schema}")
        if self.release and other.release and self.release != other.release:
            raise InsightsError(f"windows of different releases do not merge: {self.release} and {other.release}")
        arrays: dict[str, Array] = {name: array + other.arrays[name] for name, array in self.arrays.items()}
        for name, array in arrays.items():
            if (
                array.dtype.kind == "i"
                and array.size
                and not 0 <= int(array.min()) <= int(array.max()) <= MAX_STORED_COUNT
            ):
                raise InsightsError(f"the sum of {name} is above {MAX_STORED_COUNT}; a device sends absurd counts")
        start, end = _span(self, other)
        return Window(
            self.release or other.release,
            _same(self.variant, other.variant),
            _same(self.provider, other.provider),
            start,
            end,
            self.schema,
            arrays,
            _merge_extra(self.extra, other.extra),
        )

    def to_wire(self) -> dict[str, Any]:
        """The window as a map of plain values, byte strings in place of arrays."""
        return {
            **self.extra,
            "release": self.release,
            "variant": self.variant,
            "provider": self.provider,
            "start": self.start,
            "end": self.end,
            "arrays": arrays_to_wire(self.arrays),
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

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same to the last bit."""
        if not isinstance(other, Window):
            return NotImplemented
        mine = (self.release, self.variant, self.provider, self.start, self.end, self.schema, self.extra)
        theirs = (other.release, other.variant, other.provider, other.start, other.end, other.schema, other.extra)
        return mine == theirs and all(np.array_equal(array, other.arrays[name]) for name, array in self.arrays.items())

    __hash__ = None  # type: ignore[assignment]  # its arrays change while it counts


def _from_wire(wire: Mapping[str, Any], schema: WindowSchema, max_count: int) -> Window:
    if not isinstance(wire, Mapping):
        raise InsightsError(f"the window is a {type(wire).__name__}; it has to be a map")
    extra = {key: value for key, value in wire.items() if key not in _KNOWN and key != "v"}
    if len(extra) > MAX_EXTRA_KEYS or any(len(_canonical(value)) > MAX_EXTRA_BYTES for value in extra.values()):
        raise InsightsError(
            f"the window has more than {MAX_EXTRA_KEYS} unknown fields, or one above {MAX_EXTRA_BYTES} bytes"
        )
    return Window(
        _text(wire, "release"),
        _text(wire, "variant"),
        _text(wire, "provider"),
        _time(wire, "start"),
        _time(wire, "end"),
        schema,
        arrays_from_wire(wire.get("arrays", {}), schema, max_count),
        extra,
    )


def _text(wire: Mapping[str, Any], key: str) -> str:
    value = wire.get(key, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value.isprintable() and value.isascii()):
        raise InsightsError(f"the window's {key} is not a printable text of at most {MAX_TEXT} ASCII characters")
    return value


def _time(wire: Mapping[str, Any], key: str) -> float:
    value = wire.get(key, 0.0)
    if type(value) not in (int, float) or not abs(value) <= MAX_TIME:  # not: NaN compares false
        raise InsightsError(f"the window's {key} is {value!r:.40}; it has to be unix seconds")
    return float(value)


def _span(one: Window, other: Window) -> tuple[float, float]:
    if _timeless(one):
        return other.start, other.end
    if _timeless(other):
        return one.start, one.end
    return min(one.start, other.start), max(one.end, other.end)


def _timeless(window: Window) -> bool:
    return not window.release and window.start == 0.0 and window.end == 0.0


def _same(one: str, other: str) -> str:
    if not one or not other or one == other:
        return one or other
    return MIXED


def _merge_extra(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Union; of two values the greater one, of too many keys the first ones, so that the order does not matter."""
    merged = dict(one)
    for key, value in other.items():
        if key not in merged or _canonical(value) > _canonical(merged[key]):
            merged[key] = value
    return {key: merged[key] for key in sorted(merged)[:MAX_EXTRA_KEYS]}


def _canonical(value: Any) -> bytes:
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, ValueError, TypeError, RecursionError) as error:
        raise InsightsError(f"an unknown field of the window cannot be kept: {error}") from error
