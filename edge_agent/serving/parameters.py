"""Parameters of requests and responses, whichever door they pass: urgency, classes, shared memory, audits. Pure.

https://github.com/triton-inference-server/server/tree/main/docs/protocol: extension_parameters.md,
extension_schedule_policy.md, extension_classification.md and extension_shared_memory.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from edge_agent.serving.errors import BadRequest, Forbidden

REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
#: Parameters of a response: the true label of the answer is asked for; of which rows, where it is not the first alone.
AUDIT, AUDIT_ROWS = "audit", "audit_rows"
#: It was sent to the hub's teacher, and of which rows; whose better answer this is, and of which rows.
ESCALATED, ESCALATED_ROWS = "escalated", "escalated_rows"
TEACHER, TEACHER_ROWS = "teacher", "teacher_rows"
#: Who said otherwise, while the edge's own answer stands, and of which rows.
OUTVOTED, OUTVOTED_ROWS = "outvoted", "outvoted_rows"
NO_SHARED_MEMORY = "clients may not share memory with this agent; the setting shared_memory allows it"

#: Of a request that has none; one object for all of them.
NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})
#: Of an answer that is the edge's own.
NO_TEACHERS: Mapping[int, str] = MappingProxyType({})


class Place(NamedTuple):
    """A part of a region of shared memory: where a tensor lies, or is wanted."""

    region: str
    offset: int
    byte_size: int


class Memory(Protocol):
    """Regions of shared memory; each of these raises BadRequest."""

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        """Bytes where they lie."""

    def write(self, region: str, offset: int, byte_size: int, data: bytes) -> None:
        """Write to a part that is set aside."""

    def check(self, regions: Iterable[str]) -> None:
        """Say whether what was read was there all the while."""


def shared(memory: Memory | None) -> Memory:
    """The memory that clients share.

    Raises:
        Forbidden: they may not.
    """
    if memory is None:
        raise Forbidden(NO_SHARED_MEMORY)
    return memory


def place(parameters: Mapping[str, Any]) -> Place | None:
    """Where in shared memory a tensor lies or is wanted; None: not there.

    Raises:
        BadRequest: the parameters say it wrongly.
    """
    region = parameters.get(REGION)
    if region is None:
        if SIZE in parameters or OFFSET in parameters:
            raise BadRequest(f"{SIZE} and {OFFSET} need a {REGION}")
        return None
    size, offset = parameters.get(SIZE), parameters.get(OFFSET, 0)
    if not isinstance(region, str) or type(size) is not int or type(offset) is not int or size < 0 or offset < 0:
        raise BadRequest(f"{REGION} has to be a name, and {SIZE} and {OFFSET} numbers of bytes")
    return Place(region, offset, size)


def of_answer(
    audit: Sequence[int],
    escalated: Sequence[int] = (),
    teachers: Mapping[int, str] = NO_TEACHERS,
    outvoted: Mapping[int, str] = NO_TEACHERS,
) -> dict[str, bool | str]:
    """The parameters of a response.

    Args:
        audit: rows that were drawn for an audit.
        escalated: rows that were sent to the hub's teacher.
        teachers: row → name of the teacher whose answer it is.
        outvoted: row → name of the teacher that said otherwise, where the edge's own answer stands.
    """
    said: dict[str, bool | str] = {}
    for value, name, rows_name, rows in (
        (True, AUDIT, AUDIT_ROWS, audit),
        (True, ESCALATED, ESCALATED_ROWS, escalated),
        (",".join(dict.fromkeys(teachers.values())), TEACHER, TEACHER_ROWS, tuple(teachers)),
        (",".join(dict.fromkeys(outvoted.values())), OUTVOTED, OUTVOTED_ROWS, tuple(outvoted)),
    ):
        if rows:
            said[name] = value
            if tuple(rows) != (0,):
                said[rows_name] = ",".join(map(str, rows))
    return said


def urgency(parameters: Mapping[str, Any]) -> tuple[int, float]:
    """Priority, and the seconds that the client waits, 0 where it does not say.

    Raises:
        BadRequest: one is no whole number from 0.
    """
    return _whole(parameters, "priority"), _whole(parameters, "timeout") / 1e6


def classes(parameters: Mapping[str, Any]) -> int:
    """How many classes an output is wanted as; 0: as it is.

    Raises:
        BadRequest: it is no whole number from 0, or the output is wanted in shared memory too.
    """
    count = _whole(parameters, "classification")
    if count and REGION in parameters:
        raise BadRequest("an output is wanted as a classification or in shared memory, not both")
    return count


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    # Triton's numbers have 64 bits.
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise BadRequest(f"the parameter {name} has to be a whole number from 0, not {value!r:.40}")
    return value
