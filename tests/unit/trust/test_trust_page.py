"""The reference page on trust says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from edgeloop.trust import checking, names, repository

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "trust.md").read_text(encoding="utf-8")


def test_every_role_has_a_row_with_its_lifetime() -> None:
    rows = dict(re.findall(r"^\| `([a-z.<>]+)` \|.*\| (\d+) days \|", PAGE, re.MULTILINE))
    lifetimes = {role: str(lifetime.days) for role, lifetime in repository.LIFETIME.items()}
    lifetimes["releases.<model>"] = lifetimes.pop("releases")
    assert rows == lifetimes


def test_every_path_in_the_table_has_the_order_that_is_said() -> None:
    rows = re.findall(r"^\| `([a-z]+/[a-z0-9/]+)` \| \((\d+), (\d+)\) \|", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for path, counter, revision in rows:
        assert names.parse_release(path).order == (int(counter), int(revision))


def test_limits_in_the_text_are_the_code_s() -> None:
    kept = repository.KEPT
    assert f"newest {kept['releases']} releases of a model" in PAGE
    assert f"newest {kept['retrained']} retrained" in PAGE
    assert f"at most {checking.MAX_BYTES:,} bytes" in PAGE
    assert f"at most {checking.MAX_INDEX_BYTES >> 20} MiB" in PAGE
