"""The choice for a release on this machine: from the table that is kept, or measured anew where it is not true now."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeloop.package import Package
from edgeloop.runtime.candidates import Candidate, Rules
from edgeloop.runtime.choosing import CRASHED, Choice, Guard, choose
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.errors import ModelLoadError
from edgeloop.runtime.evidence import Evidence, EvidenceStore, Trial
from edgeloop.runtime.fingerprint import Fingerprint, take
from edgeloop.runtime.isolated import Progress
from edgeloop.runtime.providers import CPU
from edgeloop.runtime.trying import load_checked, silent, survive

#: Folders in the data folder.
EVIDENCE, COMPILED = "evidence", "compiled"


class Selector:
    """Chooses how releases run here, and remembers why.

    ``<folder>/evidence`` holds the tables, ``<folder>/compiled`` what providers have compiled.
    """

    def __init__(
        self,
        folder: Path,
        rules: Rules,
        *,
        compiled_max_bytes: int = 2 << 30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the machine's fingerprint, and remove what another machine or driver has compiled.

        Args:
            folder: the data folder.
            rules: the owner's.
            compiled_max_bytes: bound of what is kept compiled.
            clock: unix seconds, only written down.
        """
        self._rules, self._clock = rules, clock
        self.fingerprint: Fingerprint = take(plain_rules(rules))
        self.store = EvidenceStore(folder / EVIDENCE)
        self.compiled = Compiled(folder / COMPILED, self.fingerprint.machine, compiled_max_bytes)
        self.compiled.drop_stale()

    def fresh(self, release: str) -> Evidence | None:
        """The table of a release if it is still true."""
        found = self.store.read(release)
        return found if found is not None and found.fingerprint == self.fingerprint.digest else None

    def select(self, package: Package, *, variants: Sequence[str] | None = None, progress: Progress = silent) -> Choice:
        """How the release runs best: as the table says if it is true, else by measurement.

        Args:
            package: the release.
            variants: names of the variants that may run; None: those that are here.
            progress: told of what takes long.

        Raises:
            ModelLoadError: no candidate is right.
        """
        known = self.fresh(package.digest)
        if known is not None:
            try:
                return self.reload(package, known.winner, known.table, progress=progress)
            except ModelLoadError as error:
                progress(f"{known.winner.name} does not work any more ({error}); everything is measured again")
        return self.measure(package, variants=variants, progress=progress)

    def reload(
        self,
        package: Package,
        winner: Trial,
        table: Sequence[Trial] = (),
        *,
        isolate: bool = False,
        progress: Progress = silent,
    ) -> Choice:
        """Load what won before; its golden cases are checked, and nothing is timed.

        Raises:
            ModelLoadError: it does not load any more, or is wrong now.
        """
        candidate = Candidate(winner.variant, winner.provider, winner.threads)
        if winner.provider in self.store.died_loading(package.digest):
            raise ModelLoadError(CRASHED)
        if isolate and self._rules.isolate:
            survive(package, candidate, self._rules, self.compiled, progress)
        with self._guard(package.digest)(winner.provider):
            session, golden = load_checked(package, candidate, self._rules, self.compiled, progress)
        rows = tuple(table) or (replace(winner, ok=True),)
        return Choice(session, golden, rows, rows.index(winner) if winner in rows else 0)

    def measure(
        self, package: Package, *, variants: Sequence[str] | None = None, progress: Progress = silent
    ) -> Choice:
        """Try every candidate now, and keep the table.

        Raises:
            ModelLoadError: no candidate is right.
        """
        before = self.store.read(package.digest)
        choice = choose(
            package,
            self._rules,
            variants=variants,
            compiled=self.compiled,
            progress=progress,
            guard=self._guard(package.digest),
            distrusted=self.store.died_loading(package.digest),
        )
        choice = replace(choice, note=self._note(before, choice.winner))
        now = self.fingerprint
        evidence = Evidence(
            package.digest, now.digest, now.facts, self._clock(), choice.chosen, choice.table, choice.note
        )
        try:
            self.store.write(evidence)
            self.store.forgive(package.digest)
        except OSError as error:  # a full disk costs the next start two seconds, and this one nothing
            progress(f"the table of providers cannot be kept: {error}")
        return choice

    def keep(self, releases: Collection[str]) -> None:
        """Forget tables and compiled models of all other releases."""
        self.store.keep(releases)
        self.compiled.keep(releases)

    def _guard(self, release: str) -> Guard:
        """Marks loadings on the disk. The CPU's need none: it is onnxruntime itself, and a start writes nothing."""
        return lambda provider: nullcontext() if provider == CPU else self.store.loading(release, provider)

    def _note(self, before: Evidence | None, winner: Trial) -> str:
        if before is None:
            return ""
        changed = self.fingerprint.changed(before.facts) or "the one before did not work any more"
        old, new = before.winner.name, winner.name
        outcome = f"{new} still wins" if old == new else f"{new} instead of {old}"
        return f"measured again: {outcome} ({changed})"[:1000]


def plain_rules(rules: Rules) -> dict[str, Any]:
    """What the choice depends on, as plain values."""
    return {
        "policy": rules.policy,
        "threads": rules.threads,
        "required": sorted(rules.required),
        "allowed": sorted(rules.allowed),
        "allow_cpu_fallback": rules.allow_cpu_fallback,
        "max_memory_bytes": rules.max_memory_bytes,
        "options": {name: options.to_ort() for name, options in sorted(rules.options.items())},
    }
