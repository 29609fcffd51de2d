"""What a person's program reads while it makes a model, so that a later build can tell whether it would make the same.

``module:factory`` and pickles run code. While they do, Python's audit events (PEP 578) tell which files are opened; the
modules that lie outside the installed libraries are read from ``sys.modules``. Files that native code reads raise no
event. So whatever file or folder a module of the person names in a text, and what lies beside a file that was read,
counts as read as well. A program that reaches a network or starts another program is not followed: nothing is recorded.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_export.caching.content_keys import OWN_CODE
from model_export.data import sha256_of

#: Events after which nobody can say what the result depends on.
_BEYOND = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
#: Programs by which libraries ask for facts about the machine, which is a part of every key.
_HARMLESS = ("uname", "ldconfig", "gcc", "cc", "lscpu", "nvidia-smi", "file", "objdump", "ld", "arch")
#: Suffixes of what native code reads beside a file: weights and tables. Text is mostly read by Python itself, and what
#: a shell or a build writes beside a program is mostly text.
_BESIDE = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".hdf5", ".keras", ".onnx", ".data", ".model", ".ubj"),
    *(".parquet", ".arrow", ".feather", ".npz", ".npy"),
)
#: More files than this are no model's inputs; hashing more bytes takes longer than most conversions.
MOST_FILES, MOST_BYTES = 2_000, 4 << 30
_STARTED = time.time()


@dataclass
class Recording:
    """What was seen.

    Attributes:
        read: files that were opened.
        written: files that were made: reading them again is no input.
        beyond: the first event that nobody can follow; "" where there was none.
        began: unix seconds.
        loaded: modules that had been imported before.
    """

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    beyond: str = ""
    began: float = field(default_factory=time.time)
    loaded: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))

    def is_stale(self, module: str, path: str) -> bool:
        """Whether a module's file may be another one than what was imported."""
        try:
            changed = Path(path).stat().st_mtime
        except OSError:
            return True
        return changed > (_STARTED if module in self.loaded else self.began)


_active: list[Recording] = []
_hooked: list[bool] = []


@contextmanager
def recorded() -> Iterator[Recording]:
    """Record what is read inside the block, by any thread of this process."""
    if not _hooked:  # a hook stays until the process ends
        _hooked.append(True)
        sys.addaudithook(_hear)
    found = Recording()
    _active.append(found)
    try:
        yield found
    finally:
        _active.remove(found)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _active:
        return
    for recording in _active:
        if event == "open" and isinstance(args[0], str | bytes):
            path, mode, flags = args
            writes = any(letter in mode for letter in "wax") if isinstance(mode, str) else bool(flags & os.O_CREAT)
            (recording.written if writes else recording.read).add(_absolute(os.fsdecode(path)))
        elif event == "sqlite3.connect":
            recording.read.add(_absolute(os.fsdecode(args[0])))
        elif event in _BEYOND and not recording.beyond and not _is_harmless(event, args):
            recording.beyond = f"{event} {args[0] if event != 'socket.connect' else args[1]!r}"[:200]


def _is_harmless(event: str, args: tuple[Any, ...]) -> bool:
    if event == "socket.connect":
        return isinstance(args[1], str | bytes)  # a Unix socket: this machine's name service, its log
    program = args[0] if event in ("subprocess.Popen", "os.posix_spawn") else ""
    with suppress(TypeError, ValueError, IndexError):
        if event == "subprocess.Popen" and program is None:
            program = args[1][0]
        return Path(os.fsdecode(program)).name in _HARMLESS
    return False


def inputs_of(recording: Recording) -> dict[str, Any] | None:
    """What a program that was recorded depends on, as JSON values: files with hashes, names, environment.

    Returns:
        None where that cannot be said: it went beyond this process, reads too much, or a module was changed after it
        was imported.
    """
    tools = _tools()
    modules = _own_modules(tools)
    if recording.beyond or any(recording.is_stale(name, path) for name, path in modules.items()):
        return None
    own = {name.partition(".")[0] for name in modules}
    found = {
        "read": sorted(path for path in recording.read - recording.written if not _is_tools(path, tools)),
        "written": sorted(path for path in recording.written if not _is_tools(path, tools)),
        "modules": sorted(set(modules.values())),
        "installed": sorted({name.partition(".")[0] for name in sys.modules} - own),
    }
    try:
        return found | _as_it_is(found, tools)
    except (_TooMany, OSError):
        return None


def _as_it_is(found: Mapping[str, Any], tools: tuple[str, ...]) -> dict[str, Any]:
    """Hashes of the files and of the environment that a program reads, as they are now.

    Folders are looked into anew: a file that was not there, or a newer one, may be what it reads the next time.

    Raises:
        _TooMany: more than can be hashed.
    """
    named = {path: _texts(path) for path in found["modules"]}
    files = {path for path in (*found["read"], *found["modules"]) if Path(path).is_file()}
    for folder in {Path(path).parent for path in files}:
        files |= _bounded(path for path in folder.iterdir() if path.suffix.lower() in _BESIDE)
    for path, texts in named.items():
        files |= _named_in(texts, Path(path).parent, tools)
    mentioned = {text for texts in named.values() for text in texts if text.isidentifier()}
    return {
        "files": _hashes(files.difference(found["written"])),
        "environment": {name: _variable(name) for name in sorted(mentioned)},
    }


def still_true(inputs: Mapping[str, Any]) -> bool:
    """Whether a program would read now what it has read then."""
    here = Path.cwd()
    local = {path.stem for path in here.glob("*.py")} | {path.parent.name for path in here.glob("*/__init__.py")}
    if local & set(inputs["installed"]):
        return False  # a file of the working folder would be imported in the place of a library
    try:
        now = _as_it_is(inputs, _tools())
    except (_TooMany, OSError):
        return False
    return all(inputs[name] == what for name, what in now.items())


class _TooMany(Exception):
    """More is read than can be hashed in reasonable time."""


def _own_modules(tools: tuple[str, ...]) -> dict[str, str]:
    """Modules that are no library's, with their files. What was made in memory has a ``__file__``, but no origin."""
    found = {"__main__": getattr(sys.modules.get("__main__"), "__file__", None)}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.has_location:
            found[name] = spec.origin
    return {name: path for name, file in found.items() if file and not _is_tools(path := _absolute(file), tools)}


def _is_tools(path: str, tools: tuple[str, ...]) -> bool:
    """Whether the keys of all steps cover a file already: Python, libraries, edgeloop, facts about the machine."""
    return path.startswith(tools) or "__pycache__" in path


def _tools() -> tuple[str, ...]:
    """The folders of the tools. Asking takes milliseconds: once for all files, for PyTorch alone imports 2,000."""
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")]
    folders += [str(folder) for folder in OWN_CODE]
    folders += [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    return (*(_absolute(folder) + os.sep for folder in folders), "/proc/", "/sys/", "/dev/", "/etc/")


def _texts(path: str) -> set[str]:
    """The texts that a module has in its source."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _named_in(texts: set[str], folder: Path, tools: tuple[str, ...]) -> set[str]:
    """Files that a module names, and those below folders that it names."""
    found: set[str] = set()
    for text in texts:
        if not text.strip(" ./") or len(text) > 300 or "\n" in text or "\0" in text:
            continue
        for place in (Path.cwd() / text, folder / text):
            if place.is_file():
                found.add(_absolute(place))
            elif place.is_dir():
                found |= _bounded(place.rglob("*"))
    return {path for path in found if not _is_tools(path, tools)}


def _bounded(paths: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        if path.is_file():
            found.add(_absolute(path))
        if len(found) > MOST_FILES:
            raise _TooMany
    return found


def _hashes(files: set[str]) -> dict[str, str]:
    if len(files) > MOST_FILES or sum(Path(path).stat().st_size for path in files) > MOST_BYTES:
        raise _TooMany
    return {path: sha256_of(Path(path)) for path in sorted(files)}


def _variable(name: str) -> str:
    """Environment variables may be secrets: only their hashes are kept; "" where there is none."""
    value = os.environ.get(name)
    return "" if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


def _absolute(path: str | Path) -> str:
    return str(Path(path).absolute())
