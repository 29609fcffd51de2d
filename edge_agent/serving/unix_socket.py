"""A door's Unix-domain socket: only users whom the file's mode lets in reach it, and no other machine."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

#: A path has to fit in ``sockaddr_un``, with its end: 108 bytes on Linux, 104 on macOS.
MOST_BYTES = 103


@contextlib.contextmanager
def listening(path: Path, mode: int) -> Iterator[socket.socket]:
    """A bound socket, whose file is there as long as this lasts.

    Args:
        path: of the file. One that an agent has left behind when it was killed is replaced.
        mode: its permission bits, such as 0o600; writing is what a client needs.

    Raises:
        OSError: it cannot be made, something else is there, or somebody listens there already.
    """
    clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with permitting(mode):
            listener.bind(str(path))
        mine = path.stat()
        try:
            yield listener
        finally:
            # Another agent may have come in the meantime.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), mine):
                    path.unlink()
    finally:
        listener.close()


@contextlib.contextmanager
def permitting(mode: int) -> Iterator[None]:
    """Files that are made while this lasts have these permission bits from the first moment on."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def clear(path: Path) -> None:
    """Remove a socket that nobody listens at, so that another can be made there.

    Raises:
        OSError: somebody listens there, or no socket can be made there.
    """
    if len(os.fsencode(path)) > MOST_BYTES:
        raise OSError(f"the path has more than {MOST_BYTES} bytes; choose a shorter one")
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError("there is a file that is no socket; choose another path, or move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        # Whoever listens and takes nobody in would keep a caller waiting.
        caller.settimeout(1.0)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise OSError("somebody listens there already")
