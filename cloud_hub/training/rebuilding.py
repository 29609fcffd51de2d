"""From an ONNX file to a package like the base: ``model-export build --like`` as a child, by the base's own recipe.

Programs never import one another: what the exporter does is asked of it as a person would, by its command line.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloud_hub.training.bounded import Call, Limits, Runner, judged
from cloud_hub.training.trainer import TrainingError
from edgeloop.package import Package, PackageError, audit_in_child

_COMMAND = (sys.executable, "-P", "-c", "from model_export.cli import main; main()")
#: Seconds for the audit of what was built.
AUDIT_S = 120.0


def rebuild(
    runner: Runner,
    model: Path,
    base: Path,
    data: Path,
    package: Path,
    *,
    version: str,
    lineage: Mapping[str, Any],
    limits: Limits,
    say: Callable[[str], None],
    stopped: Callable[[], bool],
) -> Package:
    """Build the package; it appears whole, audited and with its golden cases tested, or not at all.

    Args:
        runner: where.
        model: the ONNX file, audited.
        base: folder of the package that it shall be like.
        data: folder of the dataset.
        package: folder of the new package.
        version: of it.
        lineage: what its lineage tells besides.
        limits: what the exporter may take.
        say: told what it does.
        stopped: whether it has to end.

    Raises:
        Cancelled: it had to end.
        TrainingError: the model is no such package; the message is the exporter's.
    """
    place = package.parent / "building"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    told = place / "lineage.json"
    told.write_text(json.dumps(lineage))
    built = place / "output" / package.name
    command = [
        *_COMMAND,
        "build",
        str(model),
        "--like",
        str(base),
        "--data",
        str(data),
        "--output",
        str(built),
        "--no-cache",
    ]
    command += ["--version", version, "--lineage", str(told)]
    call = Call("model-export", command, place, told, limits)
    end = runner.run(call, lambda line: say(line.text), stopped)
    if not end.why and end.code and (reason := _reason(end.last)):
        raise TrainingError(f"the model cannot be packaged like the base: {reason}")
    judged(call, end)
    try:
        audit_in_child(built, timeout_s=AUDIT_S)
    except PackageError as error:
        raise TrainingError(f"what model-export has built is refused: {'; '.join(error.problems)}") from error
    shutil.rmtree(package, ignore_errors=True)
    built.rename(package)
    shutil.rmtree(place)
    return Package.open(package)


def _reason(last: Sequence[str]) -> str:
    return next((line.removeprefix("error: ") for line in last if line.startswith("error: ")), "")
