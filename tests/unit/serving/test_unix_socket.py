"""The Unix-domain socket's file: made with its mode, taken over only from the dead, gone at the end."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.serving.unix_socket import MOST_BYTES, listening


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="door") as folder:  # pytest's own folders have longer names than fit
        yield Path(folder) / "agent.sock"


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_it_is_there_with_its_mode_and_gone_at_the_end(path: Path, mode: int) -> None:
    with listening(path, mode) as listener:
        listener.listen()
        assert stat.S_IMODE(path.stat().st_mode) == mode
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
    assert not path.exists()
    assert os.umask(0o022) == 0o022, "the process's own mask is as it was"


def test_what_a_killed_agent_left_is_taken_over(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with listening(path, 0o600) as listener:
        listener.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


@pytest.mark.parametrize("backlog", [5, 0])
def test_a_living_one_is_left_alone(path: Path, backlog: int) -> None:
    with listening(path, 0o600) as first:
        first.listen(backlog)
        inode = path.stat().st_ino
        for _ in range(3):  # also when it takes nobody in any more
            with pytest.raises(OSError, match="somebody listens there already"), listening(path, 0o600):
                pass
        assert path.stat().st_ino == inode


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(OSError, match="no socket"), listening(path, 0o600):
        pass
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(OSError, match="no socket"), listening(path, 0o600):
        pass


def test_the_file_of_another_is_not_removed_at_the_end(path: Path) -> None:
    with listening(path, 0o600):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_paths_that_cannot_be(path: Path) -> None:
    with pytest.raises(OSError, match=f"more than {MOST_BYTES} bytes"), listening(path.parent / ("a" * 120), 0o600):
        pass
    with pytest.raises(FileNotFoundError), listening(path / "below" / "agent.sock", 0o600):
        pass
