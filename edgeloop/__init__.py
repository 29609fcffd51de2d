"""What more than one of edgeloop's programs needs: protocol, package, runtime and insights.

The library imports none of the programs. Its layers, highest first:
``runtime`` > ``package`` > ``insights`` > ``protocol``; a layer imports lower ones only.
"""

from __future__ import annotations

__version__ = "0.1.0"
