"""Feedback over HTTP: true labels for earlier predictions, and for which they are asked. Only translation."""

from __future__ import annotations

import json
from typing import Any

from edge_agent.ports import FeedbackItem, Recorder
from edge_agent.serving.errors import BadRequest, NotFound
from edge_agent.serving.http_messages import Response
from edge_agent.serving.responses import as_json

#: Labels that one request may bring.
MAX_FEEDBACK = 10_000
#: Open audits that one request is told of.
MAX_AUDITS = 1_000


def give_feedback(recorder: Recorder, body: bytes) -> Response:
    """Hand labels on, and say what became of each.

    Raises:
        BadRequest: the body holds no labels; then none of them is taken.
    """
    items = _items(body)
    result = recorder.feedback(items)
    found = {
        "accepted": result.accepted,
        "unknown": list(result.unknown),
        "duplicate": list(result.duplicate),
        "invalid": [{"id": identity, "reason": reason} for identity, reason in result.invalid],
    }
    if len(items) == 1 and result.unknown:
        text = "no such prediction is kept: the id is wrong, or feedback_keep newer rows have come since"
        return as_json({"error": text, **found}, 404)
    return as_json(found)


def open_audits(recorder: Recorder) -> list[dict[str, Any]]:
    """Answers whose true labels are asked for, the newest first; their labels come as any other feedback."""
    return [vars(audit).copy() for audit in recorder.open_audits(MAX_AUDITS)]


def kept_rows(recorder: Recorder | None, prediction_id: str) -> list[dict[str, Any]]:
    """The rows of an earlier answer, with the release that gave it.

    Raises:
        NotFound: it is not kept.
    """
    found = () if recorder is None else recorder.kept(prediction_id)
    if not found:
        raise NotFound(
            f"no answer {prediction_id[:80]!r} is kept; the agent keeps the latest, as many as feedback_keep says"
        )
    return [vars(row).copy() for row in found]


def _items(body: bytes) -> list[FeedbackItem]:
    try:
        items = json.loads(body)["items"]
        if not isinstance(items, list) or not items:
            raise ValueError("items is an empty list, or none")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f'feedback has to be {{"items": [{{"id": "…", "label": …}}]}}: {error}') from error
    if len(items) > MAX_FEEDBACK:
        raise BadRequest(f"{len(items)} labels; send at most {MAX_FEEDBACK} in one request")
    return [_item(position, item) for position, item in enumerate(items)]


def _item(position: int, item: object) -> FeedbackItem:
    if not isinstance(item, dict) or set(item) - {"id", "label", "index"}:
        raise BadRequest(f"items[{position}] has to be an object with id, label and, for a batch, index")
    identity, label, index = item.get("id"), item.get("label"), item.get("index", 0)
    if not isinstance(identity, str) or isinstance(label, bool) or not isinstance(label, int | str):
        raise BadRequest(f"items[{position}]: id has to be a text, and label a number or a name")
    if type(index) is not int or not 0 <= index < 1 << 31:
        raise BadRequest(f"items[{position}]: index has to be the row's number in its batch")
    return FeedbackItem(identity, label, index)
