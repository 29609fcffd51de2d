"""A provider that misbehaves, for tests: the real onnxruntime, and one more provider in it.

It computes with the CPU, and does what the environment variable ``DOUBLE`` says: ``fine``, ``slow``, ``late``,
``nan``, ``wrong``, ``refuse``, ``leave`` (layers to the CPU), ``hang``, ``crash``, or ``hang here`` and ``crash here``:
in any process but the one that only tries it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

PROVIDER = "CUDAExecutionProvider"
#: Operators that it leaves to the CPU, where it leaves any.
LEFT = ("Gemm", "FusedGemm", "Softmax")
#: Providers and session options of every session of this process, as they came.
SEEN: list[tuple[list[Any], dict[str, str]]] = []


class Part:
    """Some nodes, which ran on the CPU and say otherwise."""

    def __init__(self, nodes: list[Any], ep_name: str = PROVIDER) -> None:
        self._nodes, self.ep_name = nodes, ep_name

    def get_nodes(self) -> list[Any]:
        return self._nodes


class Native:
    """The native session below the wrapper."""

    def __init__(self, native: Any, mood: str) -> None:
        self._native, self._mood = native, mood

    def run(self, *arguments: Any) -> list[Any]:
        found = self._native.run(*arguments)
        if self._mood == "slow":
            time.sleep(0.02)
        spoil: Callable[[Any], Any] = {"nan": lambda v: v * float("nan"), "wrong": lambda v: v[::-1].copy()}.get(
            self._mood, lambda v: v
        )
        return [spoil(values) if values.dtype.kind == "f" else values for values in found]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


def install(ort: Any, change: Callable[[Any, str, Any], None] = setattr) -> None:
    """Add the provider to ``ort``; ``change`` is ``setattr`` or pytest's, which takes it back."""
    really, there = ort.InferenceSession, ort.get_available_providers
    real_options = ort.SessionOptions

    class Session(really):  # type: ignore[misc, valid-type]  # the base is only known when it runs
        def __init__(self, path: str, options: Any, providers: list[Any], **named: Any) -> None:
            SEEN.append((providers, getattr(options, "entries", {})))
            self.doubled = providers[0][0] == PROVIDER
            if not self.doubled:
                super().__init__(path, options, providers=providers, **named)
                return
            mood = os.environ.get("DOUBLE", "fine")
            _misbehave(mood)
            plain = real_options()
            for key, value in options.entries.items():
                if key != "session.disable_cpu_ep_fallback" and not key.startswith("ep."):
                    plain.add_session_config_entry(key, value)
            super().__init__(path, plain, providers=["CPUExecutionProvider"])
            self._sess = Native(self._sess, mood)

        def get_provider_graph_assignment_info(self) -> Any:
            parts = super().get_provider_graph_assignment_info()
            if not self.doubled:
                return parts
            nodes = [node for part in parts for node in part.get_nodes()]
            left = LEFT if os.environ.get("DOUBLE") == "leave" else ()
            own = [node for node in nodes if node.op_type not in left]
            others = [node for node in nodes if node.op_type in left]
            return [Part(own), Part(others, "CPUExecutionProvider")] if others else [Part(own)]

    class Options(real_options):  # type: ignore[misc, valid-type]  # as above
        def __init__(self) -> None:
            super().__init__()
            self.entries: dict[str, str] = {}

        def add_session_config_entry(self, key: str, value: str) -> None:
            super().add_session_config_entry(key, value)
            self.entries[key] = value

    change(ort, "SessionOptions", Options)
    change(ort, "InferenceSession", Session)
    change(ort, "get_available_providers", lambda: [PROVIDER, *there()])


def _misbehave(mood: str) -> None:
    trying = "edgeloop.runtime.isolated" in " ".join(sys.orig_argv)
    if mood == "crash" or (mood == "crash here" and not trying):
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10)
    if mood == "hang" or (mood == "hang here" and not trying):
        time.sleep(3600)
    if mood == "late":
        time.sleep(1.0)
    if mood == "refuse":
        raise RuntimeError("[E] the driver is older than the library\na trace")
