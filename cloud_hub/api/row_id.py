"""The number of a row in a path: what the records can hold, so that a larger one is a wrong request and no failure."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

RowId = Annotated[int, Path(ge=0, le=2**63 - 1)]
