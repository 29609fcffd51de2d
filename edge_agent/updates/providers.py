"""What is known of execution providers on this device, for status, doctor and the hub: plain values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.settings import Settings
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.testing import TestingRules
from edgeloop.package import Package, PackageError
from edgeloop.runtime import (
    CPU,
    Evidence,
    EvidenceStore,
    available_providers,
    missing_because,
    providers_for,
    runtime_version,
    silent,
)
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.fingerprint import take
from edgeloop.runtime.isolated import try_in_child
from edgeloop.runtime.policy import thread_settings
from edgeloop.runtime.selection import COMPILED, EVIDENCE, plain_rules

#: The document is retained by the broker: a table is cut to so many rows, and a reason to so many characters.
MOST_ROWS, MOST_CHARACTERS = 32, 300


def evidence_store(data: Path) -> EvidenceStore:
    """Where the tables of this device are kept."""
    return EvidenceStore(data / EVIDENCE)


def report(data: Path, release: str | None, required: Sequence[str], trouble: str) -> dict[str, Any]:
    """What status and the hub see.

    Args:
        data: the agent's folder.
        release: digest of what serves, or None.
        required: providers that the owner requires.
        trouble: why what serves does not run as the owner wants it to, or "".
    """
    known = None if release is None else evidence_store(data).read(release)
    return {
        "onnxruntime": runtime_version(),
        "available": list(available_providers()),
        "required": list(required),
        "trouble": trouble,
        "note": "" if known is None else known.note,
        "measured_at": 0.0 if known is None else known.at,
        "table": [] if known is None else table(known),
    }


def table(evidence: Evidence) -> list[dict[str, Any]]:
    """The rows of a table; ``chosen`` marks the one that runs."""
    return [
        {**asdict(trial), "reason": trial.reason[:MOST_CHARACTERS], "chosen": number == evidence.chosen}
        for number, trial in enumerate(evidence.table[:MOST_ROWS])
    ]


def unusable_because(settings: Settings, provider: str, deadline_s: float = 60.0) -> str:
    """Why a provider cannot run what this device has, or "": it is tried now, in a process of its own.

    Args:
        settings: the agent's.
        provider: by ONNX Runtime's name.
        deadline_s: for the try.
    """
    if provider not in available_providers():
        return missing_because(provider)
    package = _newest(settings.data)
    if package is None or provider == CPU:
        return ""
    variants = [v.name for v in package.variants.values() if provider in providers_for(v.ep, [provider])]
    if not variants:
        return f"{package.name} {package.version} has no variant for {provider}"
    rules = TestingRules.of(settings).for_providers()
    # What is compiled already is used: a build of minutes would be taken for a provider that hangs.
    compiled = Compiled(settings.data / COMPILED, take(plain_rules(rules)).machine)
    launch = rules.launch(provider, thread_settings(rules.policy, rules.threads)[0], compiled)
    reasons = []
    for variant in variants:
        reason = try_in_child(package, variant, launch, silent, deadline_s)
        if not reason:
            return ""
        reasons.append(f"{variant}: {reason}")
    return "; ".join(reasons)


def tables(settings: Settings) -> list[dict[str, Any]]:
    """Every table that is kept, newest first, with what has changed since it was measured ("": it is still true)."""
    now = take(plain_rules(TestingRules.of(settings).for_providers()))
    return [
        {
            "release": known.release,
            "measured": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(known.at)),
            "changed": now.changed(known.facts),
            "note": known.note,
            "table": table(known),
        }
        for known in _newest_first(settings.data)
    ]


def _newest_first(data: Path) -> list[Evidence]:
    return sorted(evidence_store(data).all(), key=lambda known: -known.at)


def _newest(data: Path) -> Package | None:
    """The release that was measured last and is still here."""
    for known in _newest_first(data):
        index = ReleaseFiles(data).index(known.release)
        try:
            if index is not None:
                return Package.open(ReleaseFiles(data).folder(known.release), index=index)
        except PackageError:
            continue
    return None
