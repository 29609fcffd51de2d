"""Which segment a request belongs to: the value of the parameter that the policy names, for a few values."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from edge_agent.observing.store import Store, StoreError
from edgeloop.insights.policy import MAX_SEGMENT_CHARACTERS, MAX_SEGMENTS, OTHER, SEGMENT_PATTERN, InsightsPolicy
from edgeloop.protocol import ProtocolError, decode, encode

log = logging.getLogger(__name__)

_NOTE = "segments"


class Segments:
    """Names segments. What came first is remembered over restarts, so that a device does not go on to new names.

    Attributes:
        field: name of the parameter, or None while windows are not kept apart: then nobody asks for a name.

    Args:
        store: the device's database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.field: str | None = None
        self._given: tuple[str, ...] = ()
        self._names: dict[Any, str] = {}
        self._first: dict[str, list[str]] = self._remembered()

    def follow(self, policy: InsightsPolicy) -> None:
        """Name segments by another policy from now on."""
        with self._lock:
            if (policy.segment_field, policy.segment_values) != (self.field, self._given):
                self.field, self._given, self._names = policy.segment_field, policy.segment_values, {}

    def of(self, parameters: Mapping[str, Any]) -> str:
        """The segment of a request; "" for one that does not have the parameter."""
        value = parameters.get(self.field or "")
        if value is None:
            return ""
        try:
            return self._names.get(value) or self._new(value)
        except TypeError:  # a list or a map
            return OTHER

    def _new(self, value: Any) -> str:
        text = str(value)
        if len(text) > MAX_SEGMENT_CHARACTERS or not re.fullmatch(SEGMENT_PATTERN, text):
            return OTHER
        with self._lock:
            field = self.field
            if field is None:
                return ""
            names = self._given or self._first.get(field, [])
            if text in names:
                self._names[value] = text
                return text
            if self._given or len(names) >= MAX_SEGMENTS:
                return OTHER  # clients choose values without end: only those with a name are remembered
            self._first[field] = [*names, text]
            self._names[value] = text
            first = dict(self._first)
        try:
            self._store.set_note(_NOTE, encode(first))
        except StoreError as error:
            log.warning("the segments' names are kept until the next restart only: %s", error)
        return text

    def _remembered(self) -> dict[str, list[str]]:
        found = self._store.note(_NOTE)
        try:
            return {} if found is None else {str(field): list(names) for field, names in decode(found).items()}
        except (ProtocolError, TypeError) as error:
            log.warning("the segments' names cannot be read (%s); they are given anew", error)
            return {}
