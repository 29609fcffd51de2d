"""The page of threats promises nothing that no test shows: each of its links leads to a test that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "explanations" / "security.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINKS = re.findall(r"\[[^\]]+\]\(([^)#]+\.py)#(\w+)\)", TEXT)
#: Whoever the page has to speak of.
ATTACKERS = (
    *("the network", "the broker", "the storage", "one device", "a stolen device", "one publisher's key"),
    *("the hub's online keys", "the hub's database"),
)


@cache
def functions_of(file: Path) -> frozenset[str]:
    return frozenset(node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))


def rows(part: str) -> list[list[str]]:
    """The rows of the table below a headline, without its head."""
    table = TEXT.split(f"\n## {part}\n")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_link_leads_to_a_test() -> None:
    assert len(LINKS) > 60
    for path, name in LINKS:
        file = (PAGE.parent / path).resolve()
        assert file.is_file(), path
        assert name.startswith("test_") and name in functions_of(file), f"{path} has no {name}"


def test_every_attacker_has_a_row_and_every_row_a_test() -> None:
    found = rows("Attackers")
    assert [who for who in ATTACKERS if not any(f"**{who}**" in row[0] for row in found)] == []
    for row in [*found, *rows("The attacks that The Update Framework names")]:
        assert ".py#test_" in row[-1], row[0]
    for row in found:
        assert len(row) == 3 and row[1], row


def test_links_to_pages_lead_somewhere() -> None:
    for path in re.findall(r"\]\(([^):]+\.md)(?:#[\w-]+)?\)", TEXT):
        assert (PAGE.parent / path).resolve().is_file(), path
