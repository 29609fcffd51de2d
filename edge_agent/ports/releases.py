"""A release on this device, loaded."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from edgeloop.insights import Profile
from edgeloop.package import Package
from edgeloop.records import dataclass
from edgeloop.runtime import ModelSession

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LoadedRelease:
    """A release whose session is loaded and has passed its golden cases.

    Attributes:
        digest: ``sha256:…`` of the release's index.
        package: the opened package folder on this device.
        session: the session that serves it.
        profile: what normal looks like; None when the package has no profile.
    """

    digest: str
    package: Package
    session: ModelSession
    profile: Profile | None
