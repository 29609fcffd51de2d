"""The FastAPI application: routers put together, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI

import edgeloop
from cloud_hub.api import (
    accuracy,
    alarms,
    attestations,
    audit,
    blobs,
    channels,
    costs,
    devices,
    drift,
    enrolment,
    errors,
    escalations,
    insight_groups,
    insights,
    labelling,
    labels,
    lineage,
    operations,
    releases,
    retraining,
    rollouts,
    samples,
    sign_in,
    teachers,
    thresholds,
    tokens,
    trials,
    trust,
    webhooks,
)
from cloud_hub.api.body_limit import BodyLimit
from cloud_hub.api.guard import Guard
from cloud_hub.api.limits import Limits
from cloud_hub.api.openapi import describe
from cloud_hub.api.secure_headers import SecureHeaders
from cloud_hub.releases import MAX_INDEX_BYTES
from edgeloop.protocol import Escalation, Sample

if TYPE_CHECKING:
    from cloud_hub.app import Hub

API = "/api/v1"
#: Label Studio exports pictures with their labels.
MAX_IMPORT_BYTES = 32 << 20
#: In the order in which the documentation shows them.
_PARTS = (
    devices,
    releases,
    attestations,
    blobs,
    channels,
    rollouts,
    insights,
    insight_groups,
    accuracy,
    drift,
    alarms,
    webhooks,
    retraining,
    labels,
    escalations,
    teachers,
    thresholds,
    labelling,
    trials,
    lineage,
    samples,
    costs,
    trust,
    tokens,
    sign_in,
    audit,
    enrolment,
)
_DESCRIPTION = "Models go down to devices, insights come up, better models go down again."


def create_api(hub: Hub) -> FastAPI:
    """The HTTP interface of a hub."""
    app = FastAPI(
        title="edgeloop cloud-hub",
        version=edgeloop.__version__,
        description=_DESCRIPTION,
        dependencies=[Depends(Limits(hub))],
    )
    errors.install(app)
    app.add_middleware(BodyLimit, limit_of=_limit_of)
    app.add_middleware(Guard, access=hub.access)
    app.add_middleware(SecureHeaders)
    app.include_router(operations.router(hub))
    app.include_router(trust.files_router(hub))
    for part in _PARTS:
        app.include_router(part.router(hub), prefix=API)
    describe(app)
    return app


def _limit_of(method: str, path: str) -> int | None:
    """Largest body of a request, in bytes; a blob is streamed, and bounded where it is written."""
    if method == "PUT" and path.startswith(f"{API}/blobs/"):
        return None
    if method == "POST" and path == f"{API}/escalations":
        return Escalation.max_bytes
    if method == "POST" and path == f"{API}/samples":
        return Sample.max_bytes
    if method == "POST" and path == f"{API}/labelling/label-studio":
        return MAX_IMPORT_BYTES
    return MAX_INDEX_BYTES
