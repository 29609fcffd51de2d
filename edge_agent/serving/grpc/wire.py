"""An inference request's bytes, taken apart before protobuf sees them.

Raw tensors stay where they lie: protobuf would copy each of them twice. And what protobuf does see is bounded: it makes
88 bytes of an empty ``inputs`` entry, which is two bytes on the wire, so a body of 64 MiB could take 2.9 GB.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from edge_agent.serving.errors import BadRequest

#: Fields of the outermost message: inputs, outputs, parameters and raw tensors together.
MOST_FIELDS = 4096
#: All of a request but its raw tensors, bytes.
MAX_TYPED_BYTES = 16 << 20
#: ``raw_input_contents`` is field 7, and its kind is 2: a length and so many bytes.
_RAW = 7 << 3 | 2


def split(message: bytes) -> tuple[bytes, list[memoryview]]:
    """Take a ``ModelInferRequest`` apart.

    Returns:
        The message without ``raw_input_contents``, and those, each a view of ``message``.

    Raises:
        BadRequest: it is no such message, or there is too much in it.
    """
    view, end = memoryview(message), len(message)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    at = start = fields = 0
    try:
        while at < end:
            field = at
            tag, at = _varint(message, at)
            body = at
            match tag & 7:
                case 0:
                    _, at = _varint(message, at)
                case 1:
                    at += 8
                case 2:
                    length, body = _varint(message, at)
                    at = body + length
                case 5:
                    at += 4
                case _:
                    raise BadRequest("the message is no ModelInferRequest: it has a field of an unknown kind")
            if at > end:
                raise IndexError
            fields += 1
            if fields > MOST_FIELDS:
                raise BadRequest(f"the message has more than {MOST_FIELDS} inputs, outputs and parameters")
            if tag == _RAW:
                kept.append(view[start:field])
                raw.append(view[body:at])
                start = at
    except IndexError as error:
        raise BadRequest("the message is no ModelInferRequest: it ends in the middle of a field") from error
    kept.append(view[start:])
    rest = b"".join(kept)
    if len(rest) > MAX_TYPED_BYTES:
        raise BadRequest(
            f"{len(rest)} bytes of the message are no raw tensors, and at most {MAX_TYPED_BYTES} are taken; send large "
            "tensors in raw_input_contents"
        )
    return rest, raw


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where the next thing begins; raises IndexError at the message's end."""
    byte = message[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for following in range(at + 1, at + 10):
        byte = message[following]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, following + 1
        shift += 7
    raise BadRequest("the message is no ModelInferRequest: it has a number of more than 64 bits")
