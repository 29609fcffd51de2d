"""Retraining: what a trainer does with what the fleet sent, and the gate that its result has to pass."""
