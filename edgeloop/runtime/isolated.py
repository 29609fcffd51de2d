"""A first try of a provider in a process of its own: a driver that crashes or hangs there harms nobody.

The child loads one candidate, checks its golden cases and runs one row. It tells as JSON on its standard output.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
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
#: Seconds between two looks at a child.
WATCH_S = 0.05
#: Of what a child writes, so much is read.
MOST_ANSWER_BYTES = 1 << 20
#: A child ends by itself so long after it should have been killed, seconds.
GRACE_S = 5.0
#: sys/prctl.h of Linux.
_PR_SET_PDEATHSIG = 1
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
    request = describe(package, variant, launch) | {"deadline_s": deadline_s}
    start = time.monotonic()
    told = 0.0

    def watch() -> str:
        nonlocal told
        elapsed = time.monotonic() - start
        if elapsed >= deadline_s:
            return f"it took longer than {deadline_s:.0f} s and was stopped"
        if elapsed - told >= PROGRESS_S:
            told = elapsed
            progress(f"{variant} is tried on {launch.provider}, {elapsed:.0f} s so far")
        return ""

    return str(ask_child("edgeloop.runtime.isolated", request, lambda _: watch())["reason"])


def describe(package: Package, variant: str, launch: Launch) -> dict[str, Any]:
    """A candidate as plain values, for `load_described` in another process."""
    return {
        "root": str(package.root.absolute()),
        "index": package.index.to_bytes().decode(),
        "variant": variant,
        "provider": launch.provider,
        "policy": launch.policy,
        "threads": launch.threads,
        "allow_cpu_fallback": launch.allow_cpu_fallback,
        "options": {name: _plain(options) for name, options in launch.options.items()},
        "compiled": None if launch.compiled is None else [str(launch.compiled.root.parent), launch.compiled.root.name],
    }


def open_described(request: Mapping[str, Any]) -> Package:
    """The package of what `describe` wrote; raises `PackageError`."""
    return Package.open(Path(request["root"]), index=Index.parse(request["index"].encode()))


def load_described(package: Package, request: Mapping[str, Any]) -> ModelSession:
    """The session of what `describe` wrote; raises `ModelLoadError`."""
    compiled = None if request["compiled"] is None else Compiled(Path(request["compiled"][0]), request["compiled"][1])
    return ModelSession.load(
        package,
        request["variant"],
        request["provider"],
        policy=request["policy"],
        threads=request["threads"],
        allow_cpu_fallback=request["allow_cpu_fallback"],
        options=read_options(request["options"]),
        compiled=compiled,
    )


def ask_child(
    module: str,
    request: Mapping[str, Any],
    watch: Callable[[int], str],
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Have ``main`` of a module answer in a process of its own, which is killed when it is watched no longer.

    Args:
        module: reads the request as JSON from standard input, and writes an object with a ``reason`` as the last line
            of its standard output.
        request: plain values.
        watch: asked about every `WATCH_S` with the child's process id; why the child has to end, or "".
        environment: of the child; None: this process's.

    Returns:
        What the child wrote; only ``reason`` where it was killed, crashed or gave no answer.
    """
    import tempfile

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as asked:
        asked.write(json.dumps({**request, "parent": os.getpid()}).encode())
        asked.seek(0)
        child = subprocess.Popen(
            # -P: a file named json.py in the folder that we stand in is not imported.
            [sys.executable, "-P", "-c", f"import sys; from {module} import main; sys.exit(main())"],
            stdin=asked,
            stdout=out,
            stderr=err,
            env=environment,
        )
        try:
            while child.poll() is None:
                if reason := watch(child.pid):
                    return {"reason": reason}
                with suppress(subprocess.TimeoutExpired):
                    child.wait(WATCH_S)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        out.seek(0)
        err.seek(0)
        return _verdict(child.returncode, out.read(MOST_ANSWER_BYTES), err.read(MOST_ANSWER_BYTES))


def _verdict(status: int, out: bytes, told: bytes) -> dict[str, Any]:
    err = told.decode(errors="replace")
    library = _LIBRARY.search(err)
    try:
        answer = dict(json.loads(out.splitlines()[-1]))
        reason = str(answer["reason"])
        return answer | {"reason": f"{MISSING_LIBRARY}: {library[1]}" if reason and library else reason}
    except (ValueError, IndexError, KeyError, TypeError):
        pass
    last = "".join(err.strip().splitlines()[-1:])[:300]
    if status < 0:
        name = next((number.name for number in signal.Signals if number == -status), f"signal {-status}")
        return {"reason": f"it crashed the process ({name}). {last}".strip()}
    return {"reason": f"the process that tried it ended with status {status}. {last}".strip()}


def _plain(options: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}


def end_in_time(request: Mapping[str, Any], seconds: float) -> None:
    """In a child: the kernel ends this process then, whatever hangs in it, and with the one that started it.

    Whoever started it kills it in time; this is for the child of a process that was killed itself.

    Args:
        request: of `ask_child`.
        seconds: from now on.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != request["parent"]:  # it was killed while this one imported what it needs
        os._exit(1)


def main() -> int:
    """The child."""
    request = json.loads(sys.stdin.buffer.read())
    end_in_time(request, request["deadline_s"] + GRACE_S)
    try:
        package = open_described(request)
        session = load_described(package, request)
        report = check_golden(session, package, request["deadline_s"])
        row = {name: values[:1] for name, values in package.golden().inputs.items()}
        if report.ok:
            session.run(row, None, request["deadline_s"])
        reason = report.reason
    except (ModelLoadError, InferenceError, PackageError) as error:
        reason = str(error)
    print(json.dumps({"reason": reason}), flush=True)
    return 0
