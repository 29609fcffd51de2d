"""Whose release it is: people's keys, the fleet's offline metadata, signatures and provenance."""
