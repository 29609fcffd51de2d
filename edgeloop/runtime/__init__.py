"""Running models: execution providers, sessions, golden cases. The only place that runs ONNX."""

from __future__ import annotations

from edgeloop.runtime.choosing import Choice, Trial, choose
from edgeloop.runtime.deadline import WATCHDOG, Guard
from edgeloop.runtime.errors import DeadlineExceeded, InferenceError, ModelLoadError, ProviderError, Stopped
from edgeloop.runtime.evaluation import Evaluation, evaluate
from edgeloop.runtime.golden import GoldenReport, check_golden
from edgeloop.runtime.providers import CPU, Policy, available_providers, runtime_version
from edgeloop.runtime.session import ModelSession, probabilities_of

__all__ = [
    "CPU",
    "WATCHDOG",
    "Choice",
    "DeadlineExceeded",
    "Evaluation",
    "GoldenReport",
    "Guard",
    "InferenceError",
    "ModelLoadError",
    "ModelSession",
    "Policy",
    "ProviderError",
    "Stopped",
    "Trial",
    "available_providers",
    "check_golden",
    "choose",
    "evaluate",
    "probabilities_of",
    "runtime_version",
]
