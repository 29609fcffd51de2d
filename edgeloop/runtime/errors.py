"""What can go wrong when a model is run, by who is at fault."""

from __future__ import annotations


class ModelLoadError(Exception):
    """The model cannot be loaded: the package or this machine is at fault."""


class ProviderError(ModelLoadError):
    """A provider that was asked for is not there, or does not run the model."""


class InferenceError(Exception):
    """A run failed: the input does not fit the model, or the model failed on it."""


class DeadlineExceeded(InferenceError):
    """A run took longer than it was allowed to and was stopped.

    Attributes:
        after_s: seconds that it was allowed.
    """

    def __init__(self, after_s: float) -> None:
        super().__init__(f"stopped after {after_s:g} s")
        self.after_s = after_s


class Stopped(InferenceError):
    """A run was stopped because nobody waits for it any more."""
