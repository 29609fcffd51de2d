"""What all policies have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Policy(BaseModel):
    """A part of a channel's policy: it does not change, and takes no field that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
