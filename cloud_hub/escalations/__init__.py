"""Escalations: what devices are not sure of, from their messages to the answers that they get back."""
