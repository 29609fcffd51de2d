"""Drift from sums alone, beside a library that is given every row: ``python -m benchmarks.drift_power``."""
