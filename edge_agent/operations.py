"""What operators see and do: the status document, flush, metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from edge_agent.metrics import CONTENT_TYPE, Metric, exposition
from edge_agent.observing.assembly import Observing
from edge_agent.observing.own_alarms import plain
from edge_agent.operator_key import HEADER, NAME
from edge_agent.ports import MessagingState, TrustState
from edge_agent.sampling.assembly import Samples
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import Busy, Conflict, Forbidden, NotFound
from edge_agent.settings import Settings
from edge_agent.updates import UpdateMachine
from edge_agent.updates.providers import report
from edgeloop import __version__

if TYPE_CHECKING:
    from edge_agent.escalating.escalator import Escalator
    from edge_agent.flows.assembly import Flows
    from edgeloop.insights.accuracy import Accuracy

#: A test that is under way ends first; it is seldom longer, and the request stays with the agent in any case.
LONGEST_ROLLBACK_S = 300.0


class AgentOperations:
    """Implements `edge_agent.serving.routes.Operations`."""

    def __init__(
        self,
        settings: Settings,
        plane: DataPlane,
        updates: UpdateMachine,
        observing: Observing,
        samples: Samples,
        messaging: Callable[[], MessagingState],
        flows: Flows | None,
        strain: Callable[[], str],
        trust: Callable[[], TrustState],
        key: str,
        escalator: Escalator | None = None,
    ) -> None:
        self._settings, self._plane, self._updates = settings, plane, updates
        self._observing, self._samples, self._messaging, self._flows = observing, samples, messaging, flows
        self._strain, self._trust, self._key, self._escalator = strain, trust, key, escalator

    def status(self) -> Mapping[str, Any]:
        """The status document: what serves, what the update does, what waits to be sent."""
        loaded, at = self._plane.loaded, self._updates.status()
        seen = self._observing.status()
        return {
            "device": self._settings.device,
            "agent_version": __version__,
            "release": self._updates.committed(),
            "previous": self._updates.previous(),
            "serving": None if loaded is None else loaded.digest,
            "release_name": "" if loaded is None else f"{loaded.package.name} {loaded.package.version}",
            "variant": "" if loaded is None else loaded.session.variant,
            "provider": "" if loaded is None else loaded.session.provider,
            "placement": {} if loaded is None else dict(loaded.session.placement),
            "update": {**asdict(at), "bytes": self._updates.last_update_bytes},
            "providers": report(
                self._settings.data,
                None if loaded is None else loaded.digest,
                self._settings.required_providers,
                self._updates.provider_trouble,
            ),
            "counters": asdict(self._plane.counters()),
            "epoch": seen.epoch,
            "last_seq": seen.last_seq,
            "outbox": {"windows": seen.outbox.rows, "bytes": seen.outbox.bytes, "unsent": seen.outbox.unsent_rows},
            "insights": asdict(seen.insights),
            "clock": seen.clock,
            "ledger": {**seen.ledger, "by_release": seen.by_release},
            "unclean_restarts": seen.unclean_restarts,
            "recovered_windows": seen.recovered_windows,
            "kept_predictions": seen.kept_predictions,
            "accuracy": None if loaded is None else _plain(self._observing.recorder.accuracy(loaded.digest)),
            "unobserved": {"without_profile": seen.without_profile, "failed": seen.failed},
            "privacy": asdict(seen.privacy),
            "samples": asdict(self._samples.status()),
            "escalation": None if self._escalator is None else self._escalator.status(),
            "trouble": seen.trouble,
            "alarms": plain(self._observing.recorder.alarms.open),
            "strain": self._strain(),
            "messaging": asdict(self._messaging()),
            "trust": asdict(self._trust()),
            **({"sources": [], "sinks": []} if self._flows is None else self._flows.status()),
        }

    def roll_back(self, reason: str, key: str) -> Mapping[str, Any]:
        """Leave the release that serves.

        Raises:
            Forbidden: the key is not the operator's.
            Conflict: there is none to go back to.
            Busy: an update is being tested; it is left when that has ended.
        """
        if not compare_digest(key.encode(), self._key.encode()):
            raise Forbidden(
                f"{HEADER} has to be what {NAME} in the agent's data folder holds; `edge-agent rollback` sends it"
            )
        try:
            at = self._updates.go_back(reason).result(LONGEST_ROLLBACK_S)
        except LookupError as error:
            raise Conflict(str(error)) from error
        except TimeoutError as error:
            raise Busy("a release is being tested just now; it goes back when that has ended, see `status`") from error
        return {"left": at.release, "release": self._updates.committed(), "reason": at.reason}

    def answers(self, prediction_id: str) -> Mapping[str, Any]:
        """What has become of the rows of a request that were sent to the hub's teacher.

        Raises:
            NotFound: none of its rows was, as far as is known.
        """
        found = None if self._escalator is None else self._escalator.answers(prediction_id)
        if found is None:
            raise NotFound(
                f"no row of {prediction_id[:200]!r} was sent to the teacher since the agent's start, or too many newer "
                "ones were"
            )
        return {"id": prediction_id, "answers": found}

    def flush(self) -> None:
        """Close the open windows now."""
        self._observing.recorder.flush()

    def metrics(self) -> tuple[bytes, str]:
        """Prometheus' text and its content type."""
        status, counters = self.status(), self._plane.counters()
        serving = {"release": status["serving"] or ""}
        how = {**serving, "variant": status["variant"], "provider": status["provider"]}
        outbox, insights, connected = status["outbox"], status["insights"], float(status["messaging"]["connected"])
        samples = status["samples"]
        found = (
            Metric("predictions_total", "Rows answered by the release that serves.", counters.predictions, serving),
            Metric("errors_total", "Requests that failed through the model's fault.", counters.errors, serving),
            Metric("nonfinite_total", "Rows whose scores were not finite.", counters.nonfinite, serving),
            Metric("inference_seconds_total", "Seconds spent in runs.", counters.latency_ns / 1e9, serving),
            Metric("serving", "1 for what serves.", 1, how),
            Metric("update_state", "1 for the state of the update machine.", 1, {"state": status["update"]["state"]}),
            Metric("outbox_windows", "Windows that the hub has not acknowledged.", outbox["windows"]),
            Metric("outbox_bytes", "Their size.", outbox["bytes"]),
            Metric("outbox_unsent_windows", "Of them, those that were never sent.", outbox["unsent"]),
            Metric("insights_bytes_today", "Bytes of insights that left since midnight, UTC.", insights["bytes_today"]),
            Metric("insights_gives_up", "Whether waiting windows gave up resolution.", bool(insights["gives_up"])),
            Metric("insights_replaying", "Whether a backlog of windows waits or leaves.", insights["replaying"]),
            Metric("samples_kept_total", "Inputs that were kept for retraining.", samples["kept"]),
            Metric("samples_sent_total", "Those that left, again included.", samples["sent"]),
            Metric("samples_sent_bytes_total", "Bytes of their messages.", samples["sent_bytes"]),
            Metric("samples_acknowledged_total", "Those that the hub has.", samples["acknowledged"]),
            Metric("samples_refused_total", "Those that the hub will never have.", samples["refused"]),
            Metric("samples_dropped_total", "Those that had to make room.", samples["dropped"]),
            Metric("samples_waiting", "Of them, those that the hub has not acknowledged.", samples["waiting"]),
            Metric("samples_waiting_bytes", "Their size.", samples["bytes"]),
            Metric("clock_trouble", "Whether the device's clock is or was wrong.", bool(status["clock"])),
            Metric("unclean_restarts", "Starts after a kill or a power cut.", status["unclean_restarts"]),
            Metric("drift_alarms", "Drifts that the device sees in its own windows.", len(status["alarms"])),
            Metric("untrusted_total", "Documents and releases that were not trusted.", status["trust"]["refused"]),
            Metric("trust_trouble", "Whether something is not trusted now.", bool(status["trust"]["trouble"])),
            Metric("broker_connected", "Whether the broker is there.", connected),
        )
        escalating = () if status["escalation"] is None else _escalation(status["escalation"])
        flowing = () if self._flows is None else self._flows.metrics()
        return exposition((*found, *escalating, *flowing)), CONTENT_TYPE


def _escalation(status: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The cascade's, where it is not switched off by the owner."""
    return (
        Metric("escalations_total", "Inputs that were sent to the hub's teacher.", status["sent"]),
        Metric("escalation_bytes_total", "Bytes of their messages.", status["bytes"]),
        Metric("escalations_answered_total", "Inputs for which its label has come.", status["answered"]),
        Metric("escalations_outvoted_total", "Labels against which its own answer stood.", status["outvoted"]),
        Metric("escalations_unanswered_total", "Inputs for which it said that none will.", status["unanswered"]),
        Metric("escalations_unsent_total", "Inputs that were drawn and could not leave.", status["unsent"]),
        Metric("escalations_late_total", "Labels that came when their client had gone on.", status["late"]),
        Metric("escalation_share", "Share of the answers that is escalated now.", status["share"]),
        Metric("escalation_held", "Whether nothing is escalated now, for a reason.", bool(status["held"])),
        Metric("escalations_pending", "Inputs that were sent and have no answer yet.", status["pending"]),
        Metric("escalation_hub_silent_seconds", "How long a hub acknowledges nothing.", status["hub_silent_s"]),
        Metric("escalation_clients_waiting", "Clients that wait for the teacher's answer.", status["clients_waiting"]),
    )


def _plain(found: Accuracy | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
