"""The provider that misbehaves."""

from __future__ import annotations

from tests.doubles.provider_fixture import doubled

__all__ = ["doubled"]
