"""Keys of teachers elsewhere: named in their settings, kept in a file or the environment, sent to one address only."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cloud_hub.teacher_keys import TeacherKey
from cloud_hub.teachers.port import Unavailable

_MAX_BYTES = 16 << 10


class Keys:
    """The keys that the hub's settings know.

    Args:
        known: name → where it is.
    """

    def __init__(self, known: Mapping[str, TeacherKey]) -> None:
        self._known = dict(known)

    def read(self, name: str, url: str) -> str:
        """The key, read anew: who renews the file need not restart the hub; "" where none is named.

        Args:
            name: of the key, or "".
            url: that it is sent to.

        Raises:
            Unavailable: there is none, or it is not for this address.
        """
        if not name:
            return ""
        found = self._known.get(name)
        if found is None:
            raise Unavailable(f"the hub's settings have no key {name!r:.80} (teacher_keys)")
        if not found.is_for(url):
            raise Unavailable(f"the key {name!r:.80} is not for this address (teacher_keys)")
        if found.file is None:
            key = os.environ.get(found.env, "")
        else:
            try:
                with found.file.open("rb") as file:
                    key = file.read(_MAX_BYTES).decode("ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise Unavailable(f"the key {name!r:.80} cannot be read: {type(error).__name__}") from error
        key = key.strip()
        if not key or not (key.isascii() and key.isprintable()):
            raise Unavailable(f"the key {name!r:.80} is empty, or no text")
        return key
