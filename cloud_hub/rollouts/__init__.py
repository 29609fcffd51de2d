"""Rollouts: `rules` decides and imports nothing that reads or writes; `driver` acts; `records` remembers."""
