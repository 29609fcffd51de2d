"""Flows: what the agent listens to (sources), and where the answers go (sinks). See docs/reference/flows.md.

Nothing here is imported by an agent without ``[[sources]]``, and each library only by the source that needs it.
"""
