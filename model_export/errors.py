"""The errors of model-export, by who is at fault. Each message says what is wrong; ``hint`` says what to do."""

from __future__ import annotations


class ExportError(Exception):
    """Root of what this tool refuses; never raised itself.

    Attributes:
        hint: what the person can do now; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RequestError(ExportError):
    """What was asked for makes no sense, whatever the files are."""


class SourceError(ExportError):
    """The source cannot be read, imported or converted."""


class UntrustedSourceError(SourceError):
    """The source is a pickle, and nobody said that it may run code here."""


class UnsupportedModelError(ExportError):
    """The source was read, and is not a model that edgeloop can run and watch."""


class DataError(ExportError):
    """The data file, its columns, its labels or their number do not fit the model."""


class QuantizationError(ExportError):
    """int8 was asked for, and onnxruntime's quantizer could not do it."""


class DestinationError(ExportError):
    """The package cannot be written where it was asked for."""


class InvalidPackageError(ExportError):
    """A package failed its audit."""


class GoldenMismatchError(ExportError):
    """A package does not reproduce its golden outputs on this machine."""


class UnprovenError(ExportError):
    """Nobody who is believed vouches for how a release was made."""


class MissingLibraryError(ExportError):
    """An optional library is needed for this source or data format."""


class HubUnreachableError(ExportError):
    """No hub answered at the address."""


class HubRefusedError(ExportError):
    """A hub answered, and said no.

    Attributes:
        status: of the HTTP answer.
    """

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class DeviceTrialError(ExportError):
    """A device did not measure: its owner does not allow it, it found fault with the package, or it did not answer."""


class KeyFileError(ExportError):
    """A key cannot be read or used: its file, its passphrase, or the device that keeps it."""


class UntrustedError(ExportError):
    """Signed metadata of a fleet are not signed as they have to be, or are no metadata."""


class SignaturesMissingError(ExportError):
    """More people have to sign before it can go on."""
