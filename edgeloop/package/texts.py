"""Texts in safetensors files, which hold numbers only: UTF-8, each filled up to the longest with a byte of no text."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.package.errors import PackageError

Array = npt.NDArray[Any]

#: No byte of UTF-8 is this one (RFC 3629, section 1).
FILLER = 0xFF
#: Bytes of one text, at most: a tokenizer that reads one cannot be stopped, and takes 1.4 s for a million full stops.
LONGEST = 1 << 18


def packed(texts: Array) -> npt.NDArray[np.uint8]:
    """Texts […] as uint8 […, L], L the bytes of the longest, at least 1.

    Raises:
        PackageError: one is longer than `LONGEST`.
    """
    encoded = [(text if isinstance(text, bytes) else str(text).encode()) for text in texts.ravel()]
    longest = max(map(len, encoded), default=0) or 1
    if longest > LONGEST:
        raise PackageError(f"a text has {longest:,} bytes; at most {LONGEST:,} are taken: cut it off")
    filled = b"".join(text.ljust(longest, bytes([FILLER])) for text in encoded)
    return np.frombuffer(filled, np.uint8).reshape(*texts.shape, longest)


def unpacked(name: str, array: Array) -> Array:
    """The texts […], objects, of what `packed` made of them.

    Raises:
        PackageError: it has made none such.
    """
    if array.dtype != np.uint8 or array.ndim < 2 or array.shape[-1] > LONGEST:
        raise PackageError(
            f"{name}: texts lie in a package as uint8 [N, …, L] with L up to {LONGEST:,}, not as {array.dtype} "
            f"{list(array.shape)}"
        )
    flat = np.ascontiguousarray(array).reshape(-1, array.shape[-1])
    texts = np.empty(len(flat), np.object_)
    for place, row in enumerate(flat):
        try:
            texts[place] = row.tobytes().rstrip(bytes([FILLER])).decode()
        except UnicodeDecodeError as error:
            raise PackageError(f"{name}: text {place} is not UTF-8") from error
    return texts.reshape(array.shape[:-1])
