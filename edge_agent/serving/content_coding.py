"""Content codings of HTTP bodies (RFC 9110, 8.4): what came compressed, and what may leave so. Pure."""

from __future__ import annotations

import zlib

#: Below this a coding saves less than it costs: one packet carries as much.
WORTH_BYTES = 1400
#: The fastest: numbers in JSON shrink to a half at it, and to hardly less at a higher one, in three times the time.
_LEVEL = 1
#: zlib's ``wbits``. "deflate" means zlib's format, yet some senders take it for the bare stream that is inside.
_GZIP, _ZLIB, _BARE = 31, 15, -15
_WBITS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}
KNOWN = "gzip, deflate"


class UnknownCoding(ValueError):
    """There is no such coding here."""


class Damaged(ValueError):
    """The body is not what its coding says."""


class TooLarge(ValueError):
    """The body would be larger than it may be."""


def expand(coding: bytes, body: bytes, limit: int) -> bytes:
    """Undo a coding.

    Args:
        coding: value of ``Content-Encoding``.
        body: as it came.
        limit: bytes that the outcome may have; no more than that is ever made.

    Raises:
        UnknownCoding: it is none of `KNOWN`, or several.
        Damaged: the body breaks off, or is something else.
        TooLarge: there is more in it than ``limit``.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return body
    wbits = _WBITS.get(name)
    if wbits is None:
        raise UnknownCoding(f"Content-Encoding {coding.decode('latin-1'):.60} is not known; there are {KNOWN}")
    if wbits == _ZLIB and not _is_zlib(body):
        wbits = _BARE
    stream = zlib.decompressobj(wbits)
    try:
        found = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Damaged(f"the body is not {name.decode()}: {error}") from error
    if len(found) > limit:
        raise TooLarge(f"the body has more than {limit} bytes when it is expanded")
    # gzip allows several members, one after the other; no client sends them, and looking for them invites millions.
    if not stream.eof or stream.unused_data:
        raise Damaged("the compressed body breaks off, or something follows it")
    return found


def choose(accepted: bytes) -> str | None:
    """The coding that a client likes best, by ``Accept-Encoding``; None for none. Of two equal ones the first."""
    best, weight = None, 0.0
    for item in accepted.lower().split(b","):
        name, _, parameters = item.partition(b";")
        coding = name.strip()
        if coding not in (b"gzip", b"deflate", b"identity"):
            continue
        try:
            quality = float(parameters.partition(b"q=")[2] or 1)
        except ValueError:
            continue
        if quality > weight:
            best, weight = coding, quality
    return None if best in (None, b"identity") else best.decode()


def shrink(coding: str, body: bytes) -> bytes | None:
    """A body in a coding that `choose` gave; None where it would not be smaller."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WBITS[coding.encode()])
    found = stream.compress(body) + stream.flush()
    return found if len(found) < len(body) else None


def _is_zlib(body: bytes) -> bool:
    """Whether the first two bytes are zlib's (RFC 1950): the method is 8, and together they are a multiple of 31."""
    return len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
