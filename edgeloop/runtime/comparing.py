"""Variants of a package compared as they would serve: in this library's own sessions, in a process of their own.

The child loads every variant with the same policy and threads, and times them in turn. It tells as JSON on its standard
output. What crashes or hangs there harms nobody.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from edgeloop.package import Index, Package, PackageError
from edgeloop.records import dataclass
from edgeloop.runtime.errors import InferenceError, ModelLoadError
from edgeloop.runtime.memory import resident_bytes, trim_memory
from edgeloop.runtime.options import ProviderOptions, read_options
from edgeloop.runtime.policy import Policy
from edgeloop.runtime.session import ModelSession
from edgeloop.runtime.timing import Timing, interleaved

#: Seconds that loading and warming up may take, beside the time for timing.
LOADING_S = 120.0


@dataclass(frozen=True)
class Setting:
    """How variants are run while they are compared.

    Attributes:
        provider: by ONNX Runtime's name.
        policy: how much of the machine a run may take.
        threads: of one run.
        options: the owner's, by provider.
    """

    provider: str = "CPUExecutionProvider"
    policy: Policy = "balanced"
    threads: int = 1
    options: Mapping[str, ProviderOptions] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """Of one variant.

    Attributes:
        variant: its name.
        timing: of one row; None where it failed.
        load_ms: to load it.
        memory_bytes: by which the process grew when it was loaded and run.
        reason: why it failed, or "".
    """

    variant: str
    timing: Timing | None
    load_ms: float
    memory_bytes: int | None
    reason: str = ""


def compare(
    package: Package,
    variants: Sequence[str],
    setting: Setting,
    budget_s: float,
    *,
    close: float = 0.02,
    hopeless: float = math.inf,
) -> list[Compared]:
    """Compare variants with the first one, in a child.

    Args:
        package: with golden cases, of which the first row is run.
        variants: names; the first is the baseline.
        setting: how all of them are run.
        budget_s: seconds for timing.
        close: timing ends when every ratio is known to this share.
        hopeless: timing ends when every ratio is surely above this one.

    Returns:
        One entry a variant. Where the baseline fails, all have its reason.
    """
    request = {
        "root": str(package.root.absolute()),
        "index": package.index.to_bytes().decode(),
        "variants": list(variants),
        "provider": setting.provider,
        "policy": setting.policy,
        "threads": setting.threads,
        "options": {name: _plain(options) for name, options in setting.options.items()},
        "budget_s": budget_s,
        "close": close,
        "hopeless": None if math.isinf(hopeless) else hopeless,
    }
    with tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            # -P: a file named json.py in the folder that we stand in is not imported.
            [sys.executable, "-P", "-c", "import sys; from edgeloop.runtime.comparing import main; sys.exit(main())"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
        )
        try:
            out, _ = child.communicate(json.dumps(request).encode(), timeout=budget_s + LOADING_S)
        except subprocess.TimeoutExpired:
            return _failed(variants, f"it took longer than {budget_s + LOADING_S:.0f} s and was stopped")
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
        err.seek(0)
        return _read(variants, child.returncode, out, err.read().decode(errors="replace"))


def _read(variants: Sequence[str], status: int, out: bytes, err: str) -> list[Compared]:
    try:
        rows = json.loads(out.splitlines()[-1])
        return [Compared(**{**row, "timing": row["timing"] and Timing(**row["timing"])}) for row in rows]
    except (ValueError, IndexError, KeyError, TypeError):
        last = "".join(err.strip().splitlines()[-1:])[:300]
        return _failed(variants, f"the process that tried it ended with status {status}. {last}".strip())


def _failed(variants: Sequence[str], reason: str) -> list[Compared]:
    return [Compared(name, None, 0.0, None, reason) for name in variants]


def _plain(options: ProviderOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}


def main() -> int:
    """The child."""
    request = json.loads(sys.stdin.buffer.read())
    package = Package.open(Path(request["root"]), index=Index.parse(request["index"].encode()))
    setting = Setting(request["provider"], request["policy"], request["threads"], read_options(request["options"]))
    hopeless = math.inf if request["hopeless"] is None else request["hopeless"]
    rows = _compare_here(package, request["variants"], setting, request["budget_s"], request["close"], hopeless)
    print(json.dumps([asdict(row) for row in rows]), flush=True)
    return 0


def _compare_here(
    package: Package, variants: Sequence[str], setting: Setting, budget_s: float, close: float, hopeless: float
) -> list[Compared]:
    row = {name: values[:1] for name, values in package.golden().inputs.items()}
    # The first session of a process also pays for what all share.
    _load(package, variants[0], setting, row)
    loaded = [_load(package, name, setting, row) for name in variants]
    sessions = [session for session, _ in loaded]
    if sessions[0] is None:
        return _failed(variants, f"the baseline failed: {loaded[0][1].reason}")
    here = [i for i, session in enumerate(sessions) if session is not None]
    calls = [_call(session, row) for session in sessions if session is not None]
    timings = dict(zip(here, interleaved(calls, budget_s, close=close, hopeless=hopeless), strict=True))
    return [
        Compared(told.variant, timings.get(i), told.load_ms, told.memory_bytes, told.reason)
        for i, (_, told) in enumerate(loaded)
    ]


def _load(
    package: Package, variant: str, setting: Setting, row: Mapping[str, Any]
) -> tuple[ModelSession | None, Compared]:
    import time

    trim_memory()
    before, start = resident_bytes(), time.perf_counter()
    try:
        session = ModelSession.load(
            package,
            variant,
            setting.provider,
            policy=setting.policy,
            threads=setting.threads,
            options=setting.options,
        )
        load_ms = (time.perf_counter() - start) * 1e3
        session.run(row)
    except (ModelLoadError, InferenceError, PackageError) as error:
        return None, Compared(variant, None, 0.0, None, str(error))
    after = resident_bytes()
    grown = None if before is None or after is None else max(0, after - before)
    return session, Compared(variant, None, round(load_ms, 3), grown)


def _call(session: ModelSession, row: Mapping[str, Any]) -> Any:
    return lambda: session.run(row)
