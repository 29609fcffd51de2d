"""The one import of ONNX Runtime: its reports to its vendor are turned off before it is loaded."""

from __future__ import annotations

import os

# Wheels since 1.29 report to their vendor unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

#: Warnings of every session go to the standard error of whoever runs us: errors alone are worth that.
ort.set_default_logger_severity(3)

__all__ = ["ort"]
