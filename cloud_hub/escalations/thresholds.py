"""Thresholds by a target: fitted to each release's validation set, and again to the teacher's answers as they come.

1. A release that is current, or about to be, has its validation set run: how hard is each row, who is right about it?
   That needs no device, and is of the world that the release was made for.
2. The answers of teachers are of the world as it is. Each row was drawn with a known chance, so it stands for its
   inverse (Horvitz and Thompson 1952), and the answers together for all that the devices saw.
3. A threshold changes only where what it escalates would change, and by more than chance (`Tradeoff.moved`).

Where there is neither, or the set cannot be run, the policy's own threshold stands, and the record says why. All of it
is done by a worker of the hub: nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cloud_hub import fits
from cloud_hub.access import audit
from cloud_hub.channels import Channel, Channels
from cloud_hub.escalations.records import EscalationRecord, EscalationRecords
from cloud_hub.fits import ANSWERS, NOTHING, VALIDATION, Fit
from cloud_hub.policy import TargetPolicy
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from cloud_hub.teachers.desk import Case, Desk
from cloud_hub.teachers.port import Busy, Outcome, Question
from cloud_hub.teachers.specs import PackageSpec
from cloud_hub.teachers.staff import Staff
from edgeloop.cascade.combining import better, standing
from edgeloop.cascade.fitting import Choice, Tradeoff, choose
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.insights.sizes import Array, Floats
from edgeloop.package import PackageError

log = logging.getLogger(__name__)

#: Newest answers that a fit looks at. More would be surer of a world that stays, and later to see that it does not.
MOST_ANSWERS = 500
#: With fewer, or with weights so uneven that they tell no more than so many of weight 1, nothing is fitted to them.
FEWEST_ANSWERS, FEWEST_EFFECTIVE = 100, 50.0
#: Questions of a validation set that are at a teacher's desk at a time: clients' questions go first all the same.
AT_ONCE = 32
#: What all of them may take, seconds; those that are not answered by then count as not answered.
ASKING_S = 120.0
#: Points of the curve that is kept.
POINTS = 21


class Thresholds:
    """Fits the thresholds of a hub's channels.

    Args:
        db: the records.
        channels: their policies, and the documents that tell thresholds.
        releases: whose validation sets are run.
        staff: the teachers.
        records: what teachers have answered.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        releases: Releases,
        staff: Staff,
        records: EscalationRecords,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._channels, self._releases = db, channels, releases
        self._staff, self._records, self._clock = staff, records, clock

    def on(self, channel: Channel) -> list[Fit]:
        """The fits of a channel by its present policy, the newest release first."""
        with self._db.read() as connection:
            return fits.on(connection, channel.name, channel.policy)

    def tick(self) -> None:
        """Fit what is not fitted yet, and look at the answers that have come where it is time to."""
        for channel in self._channels.all():
            if channel.policy.escalation.target is None or not _policy(channel).on:
                continue
            candidate = None if channel.rollout is None else channel.rollout.candidate
            for release in {channel.current, candidate} - {None}:
                self._look(channel, str(release), channel.policy.escalation.target)

    def _look(self, channel: Channel, release: str, target: TargetPolicy) -> None:
        with self._db.read() as connection:
            fit = fits.find(connection, channel.name, release)
        now = self._clock()
        first = next(map(self._staff.find, channel.policy.teaching.teachers[:1]), None)
        another = fit is not None and first is not None and first.changed > fit.since
        if fit is None or another or fit.recipe != fits.recipe_of(channel.policy):
            self._keep(channel, self._by_validation(channel, release, target, now))
        elif not 0 <= now - fit.looked < target.refit_s:
            if fit.source == VALIDATION and fit.teacher_accuracy is None and self._teacher(channel) is not None:
                fit = replace(self._by_validation(channel, release, target, now), since=fit.since)  # it is there now
            self._keep(channel, self._by_answers(channel, fit, target, now))

    # ── fitting ───────────────────────────────────────────────────────────────────────────────

    def _by_validation(self, channel: Channel, release: str, target: TargetPolicy, now: float) -> Fit:
        """The first fit to a release."""
        from cloud_hub.escalations.gauging import gauged  # loads ONNX Runtime, which a hub may never need
        from edgeloop.runtime import InferenceError, ModelLoadError

        desk, policy, why = self._teacher(channel), _policy(channel), "its package has no validation set to run here"
        try:
            ask = None if desk is None else lambda questions: _ask(desk, questions)
            found = gauged(self._releases.open(release), policy, channel.name, ask)
        except (PackageError, ModelLoadError, InferenceError) as error:
            found, why = None, f"its validation set cannot be run: {error}"[:500]
        except Exception as error:  # a model that nobody has thought of must not keep other channels from their fits
            log.exception("the validation set of %s cannot be looked at", release)
            found, why = None, f"its validation set cannot be run: {type(error).__name__}: {error}"[:500]
        recipe = fits.recipe_of(channel.policy)
        nothing = Fit(channel.name, release, recipe, None, NOTHING, None, None, "", None, 0, 0.0, why, now, now, now)
        if found is None:
            return replace(nothing, reason=f"{why}; {_stands(channel)} until enough answers have come")
        tradeoff = _curve(policy, found.hardness, found.edge, found.given)
        choice = _chosen(tradeoff, target, policy)
        taken = "the teacher's accuracy on it is not known, and taken for 1"
        if found.teacher_accuracy is not None and desk is not None:
            taken = f"the teacher {desk.name} is right on {found.teacher_accuracy:.3f} of it"
        return replace(
            _with(nothing, tradeoff, choice),
            source=VALIDATION,
            teacher="" if found.teacher_accuracy is None or desk is None else desk.name,
            teacher_accuracy=found.teacher_accuracy,
            rows=len(found.hardness),
            reason=_sentence("fitted to the validation set", taken, choice.missed),
        )

    def _by_answers(self, channel: Channel, fit: Fit, target: TargetPolicy, now: float) -> Fit:
        """The fit after a look at what teachers have answered."""
        policy, fit = _policy(channel), replace(fit, looked=now)
        answers = self._records.labelled(channel.name, fit.release, fit.since, MOST_ANSWERS)
        if len(answers) < FEWEST_ANSWERS:
            return _waits(channel, fit, f"{len(answers)} answers of the {FEWEST_ANSWERS} that a fit needs have come")
        # Clipping at the floor changes no weight but those of rows that were drawn while a budget was short.
        heaviest = max(policy.max_weight, 1 / policy.floor)
        tradeoff = _curve(
            policy,
            np.array([one.hardness for one in answers], np.float64),
            *likely_right(answers, 1.0 if fit.teacher_accuracy is None else fit.teacher_accuracy),
            np.array([min(1 / one.probability, heaviest) for one in answers]),
        )
        if tradeoff.effective < FEWEST_EFFECTIVE:
            told = f"{len(answers)} answers have come, which weigh as {tradeoff.effective:.0f} drawn at random would"
            return _waits(channel, fit, f"{told}; {FEWEST_EFFECTIVE:.0f} are needed")
        choice = _chosen(tradeoff, target, policy)
        present = channel.policy.escalation.threshold if fit.threshold is None else fit.threshold
        if moves := fit.threshold is None or tradeoff.moved(present, choice.threshold):
            done = f"fitted to the teacher's answers: {present:.3f} would send {tradeoff.share_of(present):.2f} of all"
        else:
            share = tradeoff.share_of(present)
            choice = replace(choice, threshold=present, share=share, accuracy=tradeoff.at(share))
            done = "what the teacher has answered gives no reason to change it"
        taken = "accuracy is as the teacher counts"
        if fit.teacher_accuracy is not None:
            taken = f"the teacher counts for {fit.teacher_accuracy:.3f}"
        return replace(
            _with(fit, tradeoff, choice),
            source=ANSWERS,
            teacher=answers[0].teacher,
            rows=len(answers),
            fitted=now if moves else fit.fitted,
            reason=_sentence(done, taken, choice.missed),
        )

    def _teacher(self, channel: Channel) -> Desk | None:
        """The desk of the channel's first teacher where it may be asked about a whole set: a package costs nobody."""
        for name in channel.policy.teaching.teachers[:1]:
            row = self._staff.find(name)
            if row is not None and isinstance(row.spec, PackageSpec):
                return self._staff.desk(name)
        return None

    # ── keeping ───────────────────────────────────────────────────────────────────────────────

    def _keep(self, channel: Channel, fit: Fit) -> None:
        """Write a fit, and have devices told where its threshold is another one."""
        with self._db.begin() as connection:
            present = self._channels.get(channel.name)
            if fits.recipe_of(present.policy) != fit.recipe:
                return  # the policy has changed meanwhile: it is fitted anew
            before = fits.thresholds(connection, channel.name, present.policy).get(fit.release)
            fits.write(connection, fit, present.in_use)
            if before == fit.threshold:
                return
            self._channels.tell_anew(connection, channel.name)
            changed = {"release": fit.release, "share": fit.share, "accuracy": fit.accuracy, "reason": fit.reason}
            after = {"threshold": fit.threshold, **changed}
            audit.changed(
                connection, "channel.threshold", {"threshold": before}, after, about=channel.name, at=fit.looked
            )
        log.info("the threshold of %s on %s is %s: %s", fit.release[:19], channel.name, fit.threshold, fit.reason)


def likely_right(answers: Sequence[EscalationRecord], teacher: float) -> tuple[Floats, Floats]:
    """How likely each row's answer is right: the device's own, and the one that the client gets when it is escalated.

    A row that the teacher and the device agree on is right as often as the teacher is, and no more is claimed. Where
    the device's answer stands against the teacher's, escalating has changed nothing, and the rule's own chance counts.

    Args:
        answers: with a label and a hardness.
        teacher: its accuracy, 0…1.

    Returns:
        float64 [n] each, 0…1.
    """
    edge, given = np.zeros(len(answers)), np.full(len(answers), teacher)
    for row, one in enumerate(answers):
        assert one.hardness is not None and one.label is not None
        sure = one.sure if one.calibrated else None
        if one.predicted == one.label:
            edge[row] = teacher
        elif sure is not None and better(one.predicted, one.hardness, one.label, sure) == one.predicted:
            edge[row] = given[row] = standing(one.hardness, sure)
    return edge, given


def _policy(channel: Channel) -> EscalationPolicy:
    return channel.policy.escalation.told({}, None)


def _curve(
    policy: EscalationPolicy, hardness: Floats, edge: Array, teacher: Array, weights: Floats | None = None
) -> Tradeoff:
    floor = min(policy.floor, policy.max_share)
    return Tradeoff.drawn(hardness, edge, teacher, weights, softness=policy.softness, floor=floor)


def _chosen(tradeoff: Tradeoff, target: TargetPolicy, policy: EscalationPolicy) -> Choice:
    return choose(tradeoff, accuracy=target.accuracy, share=target.share, max_share=policy.max_share)


def _with(fit: Fit, tradeoff: Tradeoff, choice: Choice) -> Fit:
    shares = np.linspace(0.0, 1.0, POINTS)
    reached = shares[(shares >= tradeoff.shares[0]) & (shares <= tradeoff.shares[-1])]
    return replace(
        fit,
        threshold=round(choice.threshold, 6),
        share=round(choice.share, 4),
        accuracy=round(choice.accuracy, 4),
        effective=round(tradeoff.effective, 1),
        curve=tuple((round(float(share), 4), round(tradeoff.at(float(share)), 4)) for share in reached),
    )


def _waits(channel: Channel, fit: Fit, why: str) -> Fit:
    """A fit that stays as it is; one of nothing says what it waits for."""
    return fit if fit.source != NOTHING else replace(fit, reason=f"{why}; {_stands(channel)}")


def _stands(channel: Channel) -> str:
    return f"the policy's threshold {channel.policy.escalation.threshold:g} stands"


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _ask(desk: Desk, questions: Sequence[Question]) -> list[Outcome]:
    """Ask a teacher about a whole set, a part at a time, in order; what is not answered in time is `Busy`."""
    outcomes: dict[int, Outcome] = {}
    end = time.monotonic() + ASKING_S
    for start in range(0, len(questions), AT_ONCE):
        part = range(start, min(start + AT_ONCE, len(questions)))
        left, done = threading.Semaphore(0), time.monotonic() < end
        for number in part if done else ():

            def then(outcome: Outcome, _ms: float, number: int = number, left: threading.Semaphore = left) -> None:
                outcomes[number] = outcome
                left.release()

            size = sum(tensor.nbytes for tensor in questions[number].tensors.values())
            desk.put(Case(questions[number], False, end, size, then))
        for _ in part if done else ():
            left.acquire(timeout=max(0.0, end - time.monotonic()))
    return [outcomes.get(number, Busy("no time is left")) for number in range(len(questions))]
