"""Exactly-once: what becomes of an envelope, given what was counted before. Pure.

A device numbers its windows 1, 2, 3, … within an epoch, keeps each in its outbox until the hub acknowledges it, and
says in every envelope which numbers are merged in it (``first`` … ``last``) and which is the lowest that its outbox
holds (``base``). The hub keeps one **mark** for each device and epoch: the highest number that it has dealt with.

======================================  =========  ==============================================================
envelope                                verdict    then
======================================  =========  ==============================================================
``last ≤ mark``                         duplicate  acknowledge the mark again
``first = mark + 1``                    apply      the mark becomes ``last``
``first > mark + 1``, ``base = first``  apply      as above; the numbers between are a gap: no one has them
``first > mark + 1``, ``base < first``  early      acknowledge the mark: the device sends the earlier ones again
``first ≤ mark < last``                 overlap    quarantine: a part of it is counted already
======================================  =========  ==============================================================

Without a mark (a new device, or a hub whose records were lost) the mark counts as 0: an envelope that came first
because an earlier one was lost on the way must wait for it, while one that begins at the outbox's base applies.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Action = Literal["apply", "duplicate", "early", "overlap"]


class Verdict(NamedTuple):
    """What becomes of an envelope.

    Attributes:
        action: see the module's table.
        mark: what is acknowledged, and the new mark for ``apply`` and ``overlap``; 0 for nothing yet.
        gap: numbers that are skipped, and that neither side has any more.
    """

    action: Action
    mark: int
    gap: int = 0


def judge(mark: int | None, first: int, last: int, base: int) -> Verdict:
    """Decide about one envelope.

    Args:
        mark: highest sequence number dealt with in this epoch, or None for a new epoch.
        first: lowest number in the envelope, ≥ 1.
        last: highest number in it, ≥ ``first``.
        base: lowest number in the device's outbox, ≤ ``first``.
    """
    counted = mark or 0
    if last <= counted:
        return Verdict("duplicate", counted)
    if first <= counted:
        return Verdict("overlap", last)
    if first == counted + 1 or base == first:
        return Verdict("apply", last, gap=first - counted - 1)
    return Verdict("early", counted)
