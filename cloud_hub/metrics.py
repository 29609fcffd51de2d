"""The hub's figures for Prometheus; ``docs/reference/cloud-hub.md`` lists them, and a test compares."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud_hub.counting import AGE_BOUNDS_S, Ages
from edgeloop.insights import latency_quantile_ns
from edgeloop.insights.aspects.latency import NAMES as LATENCIES

if TYPE_CHECKING:
    from cloud_hub.app import Hub


LATELY_S = 3600.0
QUANTILES = (0.5, 0.9, 0.99)


class HubCollector(Collector):
    """Reads the figures when they are asked for; nothing is counted twice."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        """Every figure."""
        yield from self._network()
        yield from self._fleet()
        yield from self._accuracy()
        yield from self._releases()
        yield from self._trust()
        yield from self._teachers()
        yield from self._thresholds()
        samples = self._hub.samples
        yield _counters("cloud_hub_samples", "Samples by what became of them.", "outcome", samples.intake.totals)
        yield _gauge("cloud_hub_samples_bytes", "Bytes of the samples that are kept.", samples.store.bytes)
        states = self._hub.workers.states
        up = {state.name: state.alive for state in states}
        failures = {state.name: state.failures for state in states}
        yield _gauges("cloud_hub_worker_up", "1 while it runs.", "worker", up)
        yield _counters("cloud_hub_worker_failures", "Times that it failed.", "worker", failures)

    def _network(self) -> Iterable[Metric]:
        hub, link = self._hub, self._hub.link.counters
        messages = {"in": link.messages_in, "out": link.messages_out}
        sizes = {"in": link.bytes_in, "out": link.bytes_out}
        yield _gauge("cloud_hub_broker_connected", "1 while the hub is connected to its broker.", hub.link.connected)
        yield _counter("cloud_hub_broker_restarts", "Times that the embedded broker was started again.", hub.restarts)
        yield _counters("cloud_hub_mqtt_messages", "MQTT messages.", "direction", messages)
        yield _counters("cloud_hub_mqtt_bytes", "Bytes of topics and payloads.", "direction", sizes)
        yield _counters("cloud_hub_ingest", "Messages by what became of them.", "outcome", hub.ingest.totals)
        yield _gauge("cloud_hub_ingest_waiting", "Messages that wait to be committed.", len(hub.ingest.inbox))
        yield _gauge("cloud_hub_ingest_lag_seconds", "How long the oldest of them has waited.", hub.ingest.lag_s)
        yield _ages(hub.ingest.ages)
        yield _counters("cloud_hub_quarantined", "Messages refused, ever.", "reason", hub.quarantine.counts())

    def _fleet(self) -> Iterable[Metric]:
        hub, totals = self._hub, self._hub.insights.totals()
        for name in ("predictions", "errors", "feedback", "windows"):
            yield _counter(f"cloud_hub_{name}", f"Counted {name} of the whole fleet, ever.", totals[name])
        devices = hub.devices.online()
        yield _gauges("cloud_hub_devices", "Devices.", "online", {"true": devices[True], "false": devices[False]})
        yield _gauge("cloud_hub_releases", "Published releases.", hub.releases.count())
        yield _gauges("cloud_hub_alarms", "Open drift alarms.", "scope", hub.alarms.open_by_scope())
        yield _gauges("cloud_hub_webhook_deliveries", "Messages to webhooks.", "state", hub.webhooks.counts())

    def _releases(self) -> Iterable[Metric]:
        """Each release on each channel: what it counted, how long it took, how far it has moved."""
        hub, keys = self._hub, ["channel", "release"]
        counted = {
            name: CounterMetricFamily(f"cloud_hub_release_{name}", f"Counted {name} of a release, ever.", labels=keys)
            for name in ("predictions", "errors", "feedback")
        }
        for channel, release, counts in hub.insights.by_release():
            for name, family in counted.items():
                family.add_metric([channel, release], float(counts[name]))
        times = GaugeMetricFamily(
            "cloud_hub_latency_seconds", "Times of the last hour's predictions.", labels=[*keys, "of", "quantile"]
        )
        for place, window in hub.insights.lately(LATELY_S, LATENCIES).items():
            for name, quantile in itertools.product(LATENCIES, QUANTILES):
                if (value := latency_quantile_ns(window.arrays[name], quantile)) is not None:
                    times.add_metric([*place, name, str(quantile)], value / 1e9)
        effects = GaugeMetricFamily(
            "cloud_hub_drift_effect",
            "Share of the mass that has moved, at the latest comparison.",
            labels=[*keys, "against", "aspect"],
        )
        for report in hub.drift.reports():
            for against, compared in report["against"].items():
                for aspect in compared["aspects"]:
                    labels = [report["channel"], report["release"], against, aspect["name"]]
                    effects.add_metric(labels, float(aspect["effect"]))
        yield from (*counted.values(), times, effects)

    def _trust(self) -> Iterable[Metric]:
        """All zero in an insecure fleet."""
        found = self._hub.trust_view()
        expires = {role.role: role.expires for role in found.roles}
        yield _gauge("cloud_hub_trust_ready", "1 while the hub signs channels.", found.ready)
        yield _gauges("cloud_hub_trust_expires_timestamp_seconds", "When signed metadata expire.", "role", expires)
        yield _gauge("cloud_hub_trust_warnings", "Things that people have to do about keys.", len(found.warnings))

    def _teachers(self) -> Iterable[Metric]:
        teaching = self._hub.teaching
        text = "Escalations by what became of them."
        yield _counters("cloud_hub_escalations", text, "outcome", teaching.office.totals)
        yield _gauge(
            "cloud_hub_escalations_under_way", "Escalations that are being answered.", teaching.office.under_way
        )
        yield _counter("cloud_hub_escalations_lost", "Records that could not be written.", teaching.writing.lost)
        questions = CounterMetricFamily(
            "cloud_hub_teacher_questions", "Questions by what became of them.", labels=["teacher", "outcome"]
        )
        waiting, working, cost = dict[str, float](), dict[str, float](), dict[str, float]()
        for name, desk in teaching.staff.states().items():
            waiting[name], working[name], cost[name] = desk.waiting, desk.state == "closed", desk.cost
            for outcome, number in desk.outcomes.items():
                questions.add_metric([name, outcome], float(number))
        for row in teaching.staff.all():
            if teaching.staff.people([row.name]):
                waiting[row.name] = teaching.records.asked_of(row.name)[0]
        yield questions
        yield _gauges("cloud_hub_teacher_waiting", "Questions that wait for a teacher.", "teacher", waiting)
        yield _gauges("cloud_hub_teacher_up", "1 while it works; 0: it rests after failures.", "teacher", working)
        yield _counters("cloud_hub_teacher_cost", "What its calls have cost.", "teacher", cost)

    def _thresholds(self) -> Iterable[Metric]:
        """Of channels with a target, what was fitted; what is not known is not said."""
        said = {
            "threshold": "Hardness from which inputs are sent to teachers, as it was fitted.",
            "share": "Share of the predictions that it is expected to send.",
            "accuracy": "Accuracy that is expected of what clients get.",
        }
        for name, text in said.items():
            metric = "cloud_hub_threshold" if name == "threshold" else f"cloud_hub_threshold_expected_{name}"
            family = GaugeMetricFamily(metric, text, labels=["channel", "release"])
            for channel in self._hub.channels.all():
                for fit in self._hub.teaching.thresholds.on(channel):
                    if (value := getattr(fit, name)) is not None:
                        family.add_metric([fit.channel, fit.release], value)
            yield family

    def _accuracy(self) -> Iterable[Metric]:
        """Of the last hour. Where there is nothing to say, nothing is said: a 0 would be an accuracy."""
        recent = self._hub.accuracy.recent()
        share = GaugeMetricFamily(
            "cloud_hub_accuracy",
            "Accuracy of the last hour's answers, by what it rests on.",
            labels=["channel", "release", "by"],
        )
        trusted = GaugeMetricFamily(
            "cloud_hub_accuracy_trusted", "1 while the estimate can be trusted.", labels=["channel", "release"]
        )
        for stretch in recent:
            found = stretch.accuracy
            trusted.add_metric([stretch.channel, stretch.release], float(found.estimate.trusted))
            for by, one in (
                ("estimate", found.estimate.expected),
                ("audits", found.audits.accuracy),
                ("labels", found.labels.plain),
            ):
                if one is not None:
                    share.add_metric([stretch.channel, stretch.release, by], one.value)
        yield from (share, trusted)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))


def _ages(ages: Ages) -> Metric:
    text = "How old windows were when they were counted: their end, by the hub's clock."
    family = HistogramMetricFamily("cloud_hub_window_age_seconds", text)
    reached = itertools.accumulate(ages.numbers)
    bounds = [*(f"{bound:.1f}" for bound in AGE_BOUNDS_S), "+Inf"]
    family.add_metric([], list(zip(bounds, map(float, reached), strict=True)), ages.sum_s)
    return family


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family
