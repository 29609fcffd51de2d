"""Exit codes of model-export. A number is never given a second meaning; docs/reference/model-export.md lists them."""

from __future__ import annotations

from enum import IntEnum

from model_export import errors


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    SOURCE = 3
    UNTRUSTED_SOURCE = 4
    UNSUPPORTED_MODEL = 5
    DATA = 6
    QUANTIZATION = 7
    DESTINATION = 8
    INVALID_PACKAGE = 9
    GOLDEN_MISMATCH = 10
    MISSING_LIBRARY = 11
    HUB_UNREACHABLE = 12
    HUB_REFUSED = 13
    KEY = 14
    UNTRUSTED = 15
    SIGNATURES_MISSING = 16
    UNPROVEN = 17
    DEVICE_TRIAL = 18


#: The most specific class comes first where one derives from another.
CODES: tuple[tuple[type[errors.ExportError], ExitCode], ...] = (
    (errors.RequestError, ExitCode.USAGE),
    (errors.UntrustedSourceError, ExitCode.UNTRUSTED_SOURCE),
    (errors.SourceError, ExitCode.SOURCE),
    (errors.UnsupportedModelError, ExitCode.UNSUPPORTED_MODEL),
    (errors.DataError, ExitCode.DATA),
    (errors.QuantizationError, ExitCode.QUANTIZATION),
    (errors.DestinationError, ExitCode.DESTINATION),
    (errors.InvalidPackageError, ExitCode.INVALID_PACKAGE),
    (errors.GoldenMismatchError, ExitCode.GOLDEN_MISMATCH),
    (errors.MissingLibraryError, ExitCode.MISSING_LIBRARY),
    (errors.HubUnreachableError, ExitCode.HUB_UNREACHABLE),
    (errors.HubRefusedError, ExitCode.HUB_REFUSED),
    (errors.KeyFileError, ExitCode.KEY),
    (errors.UntrustedError, ExitCode.UNTRUSTED),
    (errors.SignaturesMissingError, ExitCode.SIGNATURES_MISSING),
    (errors.UnprovenError, ExitCode.UNPROVEN),
    (errors.DeviceTrialError, ExitCode.DEVICE_TRIAL),
)


def exit_code_of(error: errors.ExportError) -> ExitCode:
    """The number for an error."""
    return next((code for kind, code in CODES if isinstance(error, kind)), ExitCode.INTERNAL)
