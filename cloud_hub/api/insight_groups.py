"""Insights over a stretch of time, one answer for each release, segment or device; and as a Parquet file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from cloud_hub.export import write_parquet
from cloud_hub.insights_store import class_counts, correct
from edgeloop.insights import HISTOGRAMS, Window, latency_quantile_ns, resolved
from edgeloop.insights.aspects.latency import NAMES as LATENCIES
from edgeloop.insights.binning import Edges

if TYPE_CHECKING:
    from cloud_hub.app import Hub

QUANTILES = (0.5, 0.9, 0.99)


class LatencyAnswer(BaseModel):
    """Times of predictions, milliseconds, within 2 %."""

    predictions: int = Field(description="That were measured.")
    p50: float | None
    p90: float | None
    p99: float | None


class HistogramAnswer(BaseModel):
    """One histogram in the profile's bins of equal mass: without drift all counts are about the same."""

    name: str = Field(examples=["inputs[0]"])
    title: str
    edges: list[float] = Field(description="Inner edges: one fewer than there are counts.")
    counts: list[int]


class GroupAnswer(BaseModel):
    """What one release, segment or device has counted."""

    release: str | None
    segment: str | None
    device: str | None
    start: float | None = Field(description="First interval, unix seconds; null for a device.")
    windows: int
    predictions: int
    errors: int
    feedback: int
    escalations: int
    classes: list[int]
    accuracy: float | None = Field(description="Share of the labels that agree; null without labels, and for a device.")
    latency: dict[str, LatencyAnswer] = Field(description="latency, latency_queue, latency_run.")
    histograms: list[HistogramAnswer]


Channel = Annotated[str, Query(examples=["stable"])]
Release = Annotated[str | None, Query(description="Only this release, by its digest.")]
Segment = Annotated[str | None, Query(description="Only this segment.")]
Since = Annotated[float | None, Query(description="First interval start, unix seconds.")]
Until = Annotated[float | None, Query(description="Interval start that is not taken, unix seconds.")]


def router(hub: Hub) -> APIRouter:
    """The addresses of insights that are added up."""
    routes = APIRouter(tags=["insights"])

    @routes.get("/insights/groups")
    def groups(
        channel: Channel,
        by: Annotated[
            Literal["release", "segment", "device"],
            Query(description="For devices the hub keeps totals only, since the start: no range, release or segment."),
        ] = "release",
        release: Release = None,
        segment: Segment = None,
        since: Since = None,
        until: Until = None,
        histograms: Annotated[bool, Query(description="With the histograms and their edges.")] = False,
    ) -> list[GroupAnswer]:
        """The sums over a stretch of time: quantiles of the times, histograms, totals."""
        if by == "device":
            return [_device(device.device, device.totals) for device in hub.devices.all(channel)]
        found: dict[tuple[str, str | None], tuple[float, int, Window]] = {}
        for row in hub.insights.each(channel, release, since, until, segment=segment):
            key = (row.window.release, row.window.segment if by == "segment" else None)
            window = row.window.without_segment()
            if key in found:
                start, merged, total = found[key]
                found[key] = (start, merged + row.merged, total.merge(window))
            else:
                found[key] = (row.start, row.merged, window)
        return [
            _group(hub, key, start, merged, window, histograms=histograms)
            for key, (start, merged, window) in found.items()
        ]

    @routes.get("/insights/export")
    def export(
        channel: Annotated[str | None, Query(description="Only this channel.")] = None,
        release: Release = None,
        since: Since = None,
        until: Until = None,
    ) -> FileResponse:
        """Merged windows as a Parquet file."""
        with tempfile.NamedTemporaryFile(suffix=".parquet", dir=hub.settings.data, delete=False) as file:
            path = Path(file.name)
        try:
            write_parquet(hub.insights.each(channel, release, since, until), path)
        except BaseException:
            path.unlink()
            raise
        media, done = "application/vnd.apache.parquet", BackgroundTask(path.unlink)
        return FileResponse(path, media_type=media, filename="insights.parquet", background=done)

    return routes


def _device(name: str, totals: Any) -> GroupAnswer:
    counts = {key: totals[key] for key in ("windows", "predictions", "errors", "feedback", "escalations", "classes")}
    return GroupAnswer(
        release=None, segment=None, device=name, start=None, accuracy=None, latency={}, histograms=[], **counts
    )


def _group(
    hub: Hub, key: tuple[str, str | None], start: float, merged: int, window: Window, *, histograms: bool
) -> GroupAnswer:
    release, segment = key
    labels = int(window.arrays["confusion"].sum())
    profile = hub.releases.profile(release) if histograms else None
    return GroupAnswer(
        release=release,
        segment=segment,
        device=None,
        start=start,
        windows=merged,
        predictions=window.predictions,
        errors=window.errors,
        feedback=window.feedback,
        escalations=window.escalations,
        classes=class_counts(window),
        accuracy=correct(window) / labels if labels else None,
        latency={name: _latency(window, name) for name in LATENCIES},
        histograms=[] if profile is None else _histograms(window, profile.edges, profile.input_names),
    )


def _latency(window: Window, name: str) -> LatencyAnswer:
    found = [latency_quantile_ns(window.arrays[name], quantile) for quantile in QUANTILES]
    p50, p90, p99 = (None if value is None else value / 1e6 for value in found)
    return LatencyAnswer(predictions=int(window.arrays[name].sum()), p50=p50, p90=p90, p99=p99)


def _histograms(window: Window, edges: Edges, input_names: tuple[str, ...]) -> list[HistogramAnswer]:
    found = []
    for histogram in HISTOGRAMS:
        counts, level = resolved(window, histogram.name)
        if not counts.size:
            continue
        inner, step = edges.of(histogram.name), 1 << level
        for row, counted in enumerate(counts):
            own = inner[row][step - 1 :: step][: len(counted) - 1]
            title = histogram.title(input_names, row)
            found.append(
                HistogramAnswer(name=histogram.key(row), title=title, edges=own.tolist(), counts=counted.tolist())
            )
    return found
