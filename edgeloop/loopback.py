"""Addresses of this machine: what is insecure goes no further."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    import ipaddress  # an agent that is not insecure never asks

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
