"""Observing: answered requests become windows, windows wait in the outbox until the hub has committed them.

``assembly`` puts the parts together; ``recorder`` is the port that the data plane sees.
"""
