"""What a release was made of and by whom: a bill of materials, and a signed statement that carries its hash.

Both lie beside a release, never in it, so they change no digest, and devices do not fetch them.
"""

from __future__ import annotations

from edgeloop.provenance.bill import bill_of_materials
from edgeloop.provenance.envelope import ProvenanceError, read, sign, unsigned, verify
from edgeloop.provenance.origin import Material, Origin, Statement, parse, statement

__all__ = [
    "Material",
    "Origin",
    "ProvenanceError",
    "Statement",
    "bill_of_materials",
    "parse",
    "read",
    "sign",
    "statement",
    "unsigned",
    "verify",
]
