"""A lineage in words: what ``cloud-hub lineage`` prints of what the API answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_WIDTH = 12
Document = Mapping[str, Any]


def story(lineage: Document) -> Iterator[str]:
    """Lines, the release that was asked for first, then what it was made of, then what came of it.

    Args:
        lineage: as ``GET /api/v1/lineage/{reference}`` answers.
    """
    if lineage["prediction"] is not None:
        yield from _prediction(lineage["prediction"])
    for number, link in enumerate(lineage["chain"]):
        if number:
            yield "made of"
        yield from _link(link)
    if lineage["chain"]:
        yield from _now(lineage)
    for sentence in lineage["unknown"]:
        yield _line("unknown", sentence)


def _prediction(prediction: Document) -> Iterator[str]:
    yield f"prediction {prediction['id']}"
    for seen in prediction["sightings"]:
        facts = ", ".join(f"{name} {value}" for name, value in seen["facts"].items() if value not in (None, ""))
        yield _line(
            seen["record"],
            f"row {seen['index']}: {seen['device']} on {seen['channel']}, by {_short(seen['release'])}, "
            f"{_time(seen['at'])}{f'; {facts}' if facts else ''}",
        )
    if prediction["sightings"]:
        yield "answered by"


def _link(link: Document) -> Iterator[str]:
    release = link["release"]
    yield f"{release['name']} {release['version']}  {release['digest']}"
    by = f" by {release['published_by']}" if release["published_by"] else ""
    yield _line(release["source"], f"{_time(release['created'])}{by}, {release['size']:,} bytes")
    if link["signed"] is None:
        yield _line("signed", "by nobody, or no longer: no device of a fleet with signatures would take it now")
    else:
        yield _line("signed", f"as {link['signed']['path']} by {_keys(link['signed']['keys'])}")
    if (made := link["made"]) is not None:
        vouched = f"; {_keys(made['keys'])} vouches for that" if made["keys"] else "; nobody has signed that"
        yield _line("made by", made["builder"] + vouched)
        for name, sha256 in made["materials"].items():
            yield _line("", f"of {name}, sha256 {sha256[:12]}…")
    if link["run"] is not None:
        yield from _run(link["run"])
    if (alarm := link["alarm"]) is not None:
        where = f"{alarm['scope']}{_named(alarm['devices'] or alarm['segments'])}"
        yield _line(f"alarm {alarm['id']}", f"raised {_time(alarm['raised'])}, moved since {_time(alarm['since'])}")
        yield _line("", f"{where}: {alarm['summary']}")
    for rollout in link["rollouts"]:
        yield from _rollout(rollout)
    for each in link["assigned"]:
        yield _line("current", f"on {each['channel']} {_time(each['at'])}, by {each['who']} (audit {each['entry']})")


def _run(run: Document) -> Iterator[str]:
    took = "" if None in (run["started"], run["ended"]) else f", in {run['ended'] - run['started']:.1f} s"
    yield _line(f"run {run['id']}", f"on {run['channel']}: {run['cause']}; {run['state']} {_time(run['ended'])}{took}")
    facts = dict(run["candidate"])
    data = facts.pop("data", None)
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if isinstance(value, str | int | float))
    if told:
        yield _line("", told)
    if isinstance(data, Mapping):
        yield from _data(data)
    yield _line("gate", run["verdict"].get("summary") or run["reason"])


def _data(data: Document) -> Iterator[str]:
    """Whatever a trainer tells of what it was given; the names are its own."""
    rest = dict(data)
    since, until = rest.pop("since", None), rest.pop("until", None)
    releases = rest.pop("releases", None) or ()
    span = f"from {_time(since)}" if since is not None else "from the beginning"
    yield _line("data", f"{span} to {_time(until)}" if until is not None else span)
    if told := _told(rest):
        yield _line("", told)
    if releases:
        yield _line("", f"counted by {', '.join(_short(release) for release in releases)}")


def _rollout(rollout: Document) -> Iterator[str]:
    instead = f" instead of {_short(rollout['current'])}" if rollout["current"] else ""
    by = f", started by {rollout['started_by']}" if rollout["started_by"] else ""
    yield _line("rollout", f"{rollout['id']} on {rollout['channel']}{instead}: {rollout['state']}{by}")
    if rollout["cause"]:
        yield _line("", f"because: {rollout['cause']}")
    yield _line("", f"steps: {', '.join(_step(step) for step in rollout['policy']['steps'])}")
    wanted = rollout["policy"]["approvals"]
    if not wanted and not rollout["approvals"]:
        yield _line("", "no approval was asked for")
    for approval in rollout["approvals"]:
        said = f": {approval['reason']}" if approval["reason"] else ""
        yield _line("", f"approved {_time(approval['at'])} by {approval['who']}{said}")
    for entry in rollout["history"]:
        yield _line("", f"{_time(entry['at'])} {entry['decision']} ({entry['fraction']:.0%}): {entry['reason']}")


def _now(lineage: Document) -> Iterator[str]:
    yield "now"
    for use in lineage["uses"]:
        yield _line(use["role"], f"on {use['channel']}")
    yield _line("devices", f"{lineage['devices']} have reported last that they run it")
    made = lineage["successors"]
    yield _line("made of it", "nothing yet" if not made else f"{len(made)} release{'s' * (len(made) > 1)}")
    for release in made:
        yield _line("", f"{release['name']} {release['version']}  {release['digest']}")


def _line(title: str, text: str) -> str:
    return f"  {title:<{_WIDTH}}{text}"


def _keys(keys: Sequence[str]) -> str:
    return f"key{'s' * (len(keys) > 1)} {', '.join(key[:8] for key in keys)}" if keys else "nobody"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" {', '.join(names[:5])}{more}" if names else ""


def _step(step: Document) -> str:
    if step["devices"] is not None:
        return f"{step['devices']} device{'s' * (step['devices'] > 1)}"
    return f"{step['share']:.0%} of the devices"


def _told(facts: Document) -> str:
    """Facts in a row, at any depth without those that say nothing: no text, an empty list."""
    said = ((name.replace("_", " "), _value(value)) for name, value in facts.items())
    return ", ".join(f"{name} {value}" for name, value in said if value)


def _value(value: Any) -> str:
    """A fact, or "" where it says nothing."""
    if isinstance(value, Mapping):
        told = _told(value)
        return told and f"({told})"
    if isinstance(value, str) or not isinstance(value, Sequence):
        return "" if value is None else str(value)
    return ", ".join(map(str, value))


def _short(digest: str) -> str:
    return f"{digest[:19]}…"


def _time(at: float | None) -> str:
    return "…" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
