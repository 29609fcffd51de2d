"""What goes wrong with an identity provider.

Apart from `cloud_hub.access.oidc`, which brings an HTTP client and the reading of tokens: only a hub with an issuer
imports it.
"""

from __future__ import annotations


class ProviderError(Exception):
    """The identity provider cannot be asked, or does not answer as it should: it is at fault, not the caller."""


class NotBelieved(Exception):
    """A token of somebody else, for somebody else, over, or of nobody with a role here; the text says which."""
