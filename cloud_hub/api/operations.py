"""``/healthz``, ``/readyz`` and ``/metrics``: for whoever runs the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cloud_hub.metrics import HubCollector

if TYPE_CHECKING:
    from cloud_hub.app import Hub


def router(hub: Hub) -> APIRouter:
    """The addresses of operations."""
    routes = APIRouter(tags=["operations"])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HubCollector(hub))

    @routes.get("/healthz", responses={200: {"content": {"application/json": {"example": {"alive": True}}}}})
    def healthz() -> dict[str, bool]:
        """Whether the process answers; a watchdog restarts it when this fails."""
        return {"alive": True}

    @routes.get("/readyz", responses={503: {"description": "It cannot work now; the body says what is missing."}})
    def readyz() -> JSONResponse:
        """Whether the hub can work: connected to the broker, records writable, all background work running."""
        checks = hub.checks()
        ready = all(not reason for reason in checks.values())
        body = {"ready": ready, "checks": {name: reason or "ok" for name, reason in checks.items()}}
        return JSONResponse(body, status_code=200 if ready else 503)

    @routes.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes
