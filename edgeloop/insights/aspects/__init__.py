"""The aspects of a window, in the order in which their arrays stand. A new one is one file and one line here."""

from __future__ import annotations

from edgeloop.insights.aspects.audits import Audits
from edgeloop.insights.aspects.base import Aspect
from edgeloop.insights.aspects.classes import Classes
from edgeloop.insights.aspects.confidence import Confidence
from edgeloop.insights.aspects.confusion import Confusion
from edgeloop.insights.aspects.counts import Counts
from edgeloop.insights.aspects.entropy import Entropy
from edgeloop.insights.aspects.expected import Expected
from edgeloop.insights.aspects.head import Head
from edgeloop.insights.aspects.health import Health
from edgeloop.insights.aspects.images import Images
from edgeloop.insights.aspects.inputs import Inputs
from edgeloop.insights.aspects.latency import Latency
from edgeloop.insights.aspects.moments import Moments
from edgeloop.insights.aspects.privacy import Privacy
from edgeloop.insights.aspects.projections import Projections
from edgeloop.insights.aspects.texts import Texts

ASPECTS: tuple[Aspect, ...] = (
    Counts(),
    Classes(),
    Confidence(),
    Entropy(),
    Inputs(),
    Images(),
    Texts(),
    Projections(),
    Latency(),
    Moments(),
    Confusion(),
    Head(),
    Health(),
    Privacy(),
    Expected(),
    Audits(),
)
