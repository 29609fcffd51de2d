"""Serving: one transport-neutral data plane, and doors that only translate."""
