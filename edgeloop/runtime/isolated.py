"""A first try of a provider in a process of its own: a driver that crashes or hangs there harms nobody.

The child loads one candidate, checks its golden cases and runs one row. It tells as JSON on its standard output.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeloop.package import Index, Package, PackageError
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.errors import InferenceError, ModelLoadError
from edgeloop.runtime.golden import check_golden
from edgeloop.runtime.launch import Launch
from edgeloop.runtime.options import read_options
from edgeloop.runtime.session import ModelSession

#: Told of what is under way, and for how long already.
Progress = Callable[[str], None]
#: Seconds between two lines of progress: silence is taken for a crash.
PROGRESS_S = 3.0
MISSING_LIBRARY = "a library is missing"
#: ONNX Runtime writes to its log, and not into the exception, which library is missing.
_LIBRARY = re.compile(r"with error: (\S+: cannot open shared object file)")


def try_in_child(package: Package, variant: str, launch: Launch, progress: Progress, deadline_s: float) -> str:
    """Load and check one candidate in a child process.

    Args:
        package: the package.
        variant: name of the variant.
        launch: how it is run.
        progress: told every few seconds.
        deadline_s: seconds after which the child is killed.

    Returns:
        "" when it is right, else why not.
    """
    request = {
        "root": str(package.root.absolute()),
        "index": package.index.to_bytes().decode(),
        "variant": variant,
        "provider": launch.provider,
        "policy": launch.policy,
        "threads": launch.threads,
        "allow_cpu_fallback": launch.allow_cpu_fallback,
        "options": {name: _plain(options) for name, options in launch.options.items()},
        "compiled": None if launch.compiled is None else [str(launch.compiled.root.parent), launch.compiled.root.name],
        "deadline_s": deadline_s,
    }
    import tempfile

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as asked:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        child = subprocess.Popen(
            # -P: a file named json.py in the folder that we stand in is not imported.
            [sys.executable, "-P", "-c", "import sys; from edgeloop.runtime.isolated import main; sys.exit(main())"],
            stdin=asked,
            stdout=out,
            stderr=err,
        )
        try:
            if not _wait(child, f"{variant} is tried on {launch.provider}", progress, deadline_s):
                return f"it took longer than {deadline_s:.0f} s and was stopped"
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        out.seek(0)
        err.seek(0)
        return _verdict(child.returncode, out.read(), err.read().decode(errors="replace"))


def _wait(child: subprocess.Popen[bytes], what: str, progress: Progress, deadline_s: float) -> bool:
    start = time.monotonic()
    while (left := start + deadline_s - time.monotonic()) > 0:
        try:
            child.wait(min(PROGRESS_S, left))
            return True
        except subprocess.TimeoutExpired:
            progress(f"{what}, {time.monotonic() - start:.0f} s so far")
    return False


def _verdict(status: int, out: bytes, err: str) -> str:
    library = _LIBRARY.search(err)
    try:
        reason = str(json.loads(out.splitlines()[-1])["reason"])
        return f"{MISSING_LIBRARY}: {library[1]}" if reason and library else reason
    except (ValueError, IndexError, KeyError, TypeError):
        pass
    last = "".join(err.strip().splitlines()[-1:])[:300]
    if status < 0:
        name = next((number.name for number in signal.Signals if number == -status), f"signal {-status}")
        return f"it crashed the process ({name}). {last}".strip()
    return f"the process that tried it ended with status {status}. {last}".strip()


def _plain(options: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}


def main() -> int:
    """The child."""
    request = json.loads(sys.stdin.buffer.read())
    package = Package.open(Path(request["root"]), index=Index.parse(request["index"].encode()))
    compiled = None if request["compiled"] is None else Compiled(Path(request["compiled"][0]), request["compiled"][1])
    try:
        session = ModelSession.load(
            package,
            request["variant"],
            request["provider"],
            policy=request["policy"],
            threads=request["threads"],
            allow_cpu_fallback=request["allow_cpu_fallback"],
            options=read_options(request["options"]),
            compiled=compiled,
        )
        report = check_golden(session, package, request["deadline_s"])
        row = {name: values[:1] for name, values in package.golden().inputs.items()}
        if report.ok:
            session.run(row, None, request["deadline_s"])
        reason = report.reason
    except (ModelLoadError, InferenceError, PackageError) as error:
        reason = str(error)
    print(json.dumps({"reason": reason}), flush=True)
    return 0
