"""Running models: execution providers, sessions, golden cases. The only place that runs ONNX."""

from __future__ import annotations

from edgeloop.runtime.candidates import Rules
from edgeloop.runtime.choosing import Choice, choose
from edgeloop.runtime.deadline import WATCHDOG, Guard
from edgeloop.runtime.errors import DeadlineExceeded, InferenceError, ModelLoadError, ProviderError, Stopped
from edgeloop.runtime.evaluation import Evaluation, evaluate
from edgeloop.runtime.evidence import Evidence, EvidenceStore, Trial
from edgeloop.runtime.golden import GoldenReport, check_golden
from edgeloop.runtime.isolated import Progress
from edgeloop.runtime.model import Model, Prediction
from edgeloop.runtime.options import OptionsError, ProviderOptions, read_options
from edgeloop.runtime.policy import Policy
from edgeloop.runtime.providers import (
    CPU,
    available_providers,
    missing_because,
    providers_for,
    runtime_version,
    usable_providers,
)
from edgeloop.runtime.selection import Selector
from edgeloop.runtime.session import ModelSession, probabilities_of
from edgeloop.runtime.trying import silent

__all__ = [
    "CPU",
    "WATCHDOG",
    "Choice",
    "DeadlineExceeded",
    "Evaluation",
    "Evidence",
    "EvidenceStore",
    "GoldenReport",
    "Guard",
    "InferenceError",
    "Model",
    "ModelLoadError",
    "ModelSession",
    "OptionsError",
    "Policy",
    "Prediction",
    "Progress",
    "ProviderError",
    "ProviderOptions",
    "Rules",
    "Selector",
    "Stopped",
    "Trial",
    "available_providers",
    "check_golden",
    "choose",
    "evaluate",
    "missing_because",
    "probabilities_of",
    "providers_for",
    "read_options",
    "runtime_version",
    "silent",
    "usable_providers",
]
