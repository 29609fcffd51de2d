"""The line to the hub, put together: the link to the broker, the sender of insights, messaging.

Imported when the door is open and something serves: an MQTT client and its messages are a sixth of what an agent
imports, and no answer needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.enrolled import broker_tls
from edge_agent.identity import Identity as DeviceIdentity
from edge_agent.identity import TlsOf
from edge_agent.messaging import Identity, Messaging
from edge_agent.observing.assembly import Observing
from edge_agent.observing.sender import Sender
from edge_agent.ports import Trust, Vitals
from edge_agent.sampling.assembly import Line, Samples
from edge_agent.settings import Settings
from edgeloop import __version__
from edgeloop.cascade.policy import KEY as ESCALATION
from edgeloop.insights.policy import KEY
from edgeloop.protocol import Topics
from edgeloop.protocol.link import Link
from edgeloop.sampling.policy import KEY as SAMPLES

if TYPE_CHECKING:
    from edge_agent.escalating.escalator import Escalator
    from edge_agent.trials import Trials


def hub_line(
    settings: Settings,
    identity: DeviceIdentity | None,
    observing: Observing,
    samples: Samples,
    trust: Trust,
    vitals: Callable[[], Vitals],
    hub: Callable[[], str],
    escalator: Escalator | None = None,
    trials: Callable[[Callable[[], str], Callable[[], None]], Trials | None] = lambda hub, report: None,
) -> Messaging:
    """Messaging with a link of its own; nothing is connected before it is started.

    Args:
        settings: the agent's.
        identity: of the device; None: it is not enrolled.
        observing: windows and the outbox.
        samples: inputs that are kept.
        trust: who vouches for what comes.
        vitals: what the composition root knows of the device.
        hub: base URL of the hub by the settings.
        escalator: the cascade; None: nothing is escalated.
        trials: given the hub's base URL as it is then, and what has a report sent soon, makes what measures for the
            hub; None: the owner does not allow it.
    """
    topics = Topics(settings.fleet)
    tls = broker_tls(settings, identity)

    def open_link(will: tuple[str, bytes]) -> Link:
        return Link(
            settings.broker_host,
            settings.broker_port,
            f"{settings.fleet}-{settings.device}",
            will=will,
            username=settings.broker_username,
            password=settings.broker_password,
            tls=tls,
        )

    def make_sender(link: Link) -> Sender:
        return Sender(
            observing.outbox,
            observing.store.epoch,
            link,
            device=settings.device,
            topic=topics.insights(settings.device),
            channel=lambda: messaging.channel,
            pace=observing.pace,
        )

    policies = {KEY: observing.policy.take, SAMPLES: samples.policy.take}
    if escalator is not None:
        policies[ESCALATION] = escalator.policy.take
    messaging = Messaging(
        Identity(settings.fleet, settings.device, settings.channel, __version__),
        observing.store,
        open_link,
        make_sender,
        recorder=observing.recorder,
        policies=policies,
        samples=samples.acknowledged,
        trust=trust,
        ledger=observing.ledger,
        vitals=vitals,
        report_s=settings.report_s,
        teacher=None if escalator is None else escalator.take,
        trials=trials(lambda: messaging.hub or hub(), lambda: messaging.report()),  # noqa: PLW0108  # made here
    )
    own_tls = None if identity is None else TlsOf(identity)
    samples.connect(Line(messaging.link, topics.samples(settings.device), hub, own_tls))
    if escalator is not None:
        from edge_agent.escalating.carriers import Carriers, Hub

        def hub_now() -> Hub:
            url = messaging.hub or hub()
            return Hub(url, own_tls() if own_tls is not None and url.startswith("https:") else None)

        carriers = Carriers(messaging.link, topics.escalations(settings.device), hub_now)
        escalator.join(carriers, lambda: messaging.channel, messaging.sender.silent_s)
    return messaging
