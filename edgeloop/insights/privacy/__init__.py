"""Differential privacy for windows, optional: what leaves a device tells next to nothing of any one prediction.

    window = noise(window, plan.multiplier, clip)       # before it enters the outbox

The sums of a window get Gaussian noise, once, on the device; whatever is done with them later costs nothing more.

What is promised. Two histories of a device are neighbours when they differ, in every window, in the contents of one
prediction and of one label. What leaves the device is (epsilon, delta)-indistinguishable between neighbours over a
period of some days (``budget``). So somebody who is behind at most one prediction and one label of each window is
protected for all of the period together, and whoever is behind a single one is protected far better.

What is exact, and promised nothing of: how much there was (predictions, errors, labels, rows that were not finite),
when, under which release and segment, and how the device itself was. docs/explanations/privacy.md has the reasons.

Pure but for ``budget``, which asks dp-accounting, an extra of the distribution.
"""
