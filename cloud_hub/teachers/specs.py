"""What a teacher is made of: one model of settings a kind. They are the schema of ``PUT /api/v1/teachers/{name}``.

No secret is in them: a key is named, and the hub's own settings say where it is (``teacher_keys``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

#: Questions that a teacher takes at a time, and threads that it has, at most.
MAX_BATCH, MAX_INSTANCES = 256, 64


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_s: float = Field(default=30.0, gt=0, le=600, description="What one call may take at most, seconds.")


class PackageSpec(_Spec):
    """A model package, on the hub's own runtime."""

    kind: Literal["package"]
    release: str = Field(
        pattern=r"sha256:[0-9a-f]{64}", description="Digest of a release of this hub; it need not be on a channel."
    )
    batch: int = Field(default=32, ge=1, le=MAX_BATCH, description="Inputs of one run, at most.")
    instances: int = Field(default=1, ge=1, le=MAX_INSTANCES, description="Runs at a time.")
    providers: tuple[str, ...] = Field(
        default=(), description="Execution providers of which one has to run it; empty: the fastest of all."
    )
    threads: int = Field(default=0, ge=0, le=256, description="Threads of one run; 0: measured.")


TeacherSpec = PackageSpec
ANY_SPEC: TypeAdapter[TeacherSpec] = TypeAdapter(TeacherSpec)
