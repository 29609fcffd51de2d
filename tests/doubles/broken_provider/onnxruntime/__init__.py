"""Stands before the real onnxruntime on the path of a process, and puts `tests.doubles.provider_double` into it."""

from __future__ import annotations

import sys
from pathlib import Path

_own = Path(__file__).parents[1]
_path = list(sys.path)
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != _own]
del sys.modules["onnxruntime"]
import onnxruntime  # noqa: E402  # the real one takes this one's place in sys.modules

sys.path = _path
from tests.doubles.provider_double import install  # noqa: E402

install(onnxruntime)
