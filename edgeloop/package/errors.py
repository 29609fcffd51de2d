"""The one error that leaves this package."""

from __future__ import annotations

from collections.abc import Iterable


class PackageError(ValueError):
    """A package, or a part of one, that cannot be used as it is.

    Attributes:
        problems: each thing that is wrong, as a sentence that names the file and the mend.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))
