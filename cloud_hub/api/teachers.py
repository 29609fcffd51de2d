"""``/api/v1/teachers``: who answers what devices are not sure of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.teachers.desk import DeskState
from cloud_hub.teachers.specs import TeacherSpec
from cloud_hub.teachers.staff import TeacherRow

if TYPE_CHECKING:
    from cloud_hub.app import Hub


class TeacherAnswerBody(BaseModel):
    """A teacher, and how it is doing since the hub was started."""

    name: str = Field(examples=["large"])
    kind: str = Field(examples=["package"])
    spec: dict[str, Any] = Field(description="What it is made of; keys are named, never shown.")
    created: float = Field(description="Unix seconds.")
    changed: float = Field(description="Unix seconds.")
    state: str = Field(
        description="idle: not asked yet; closed: it works; open: it rests after failures; trying: the next question "
        "decides; people: they take what they are asked from a queue.",
        examples=["closed"],
    )
    waiting: int = Field(description="Questions in its queue.")
    outcomes: dict[str, int] = Field(description="Questions by what became of them.", examples=[{"answered": 12}])
    last_error: str = Field(description="The last failure that speaks against it.")
    cost: float = Field(description="What its calls have cost since then, in the unit of its prices.")
    spent_today: float = Field(description="Spent, or set aside, on this day of UTC, whoever asked.")
    spent_this_month: float = Field(description="The same of this calendar month.")


_IDLE = DeskState("idle", 0, {}, "", 0.0)


def router(hub: Hub) -> APIRouter:
    """The addresses of teachers."""
    routes = APIRouter(prefix="/teachers", tags=["teachers"])

    def answer(row: TeacherRow) -> TeacherAnswerBody:
        state = hub.teaching.staff.states().get(row.name, _IDLE)
        if hub.teaching.staff.people([row.name]):
            state = replace(state, state="people", waiting=hub.teaching.records.asked_of(row.name)[0])
        today, month = hub.teaching.spending.lately(row.name)
        return TeacherAnswerBody(
            name=row.name,
            kind=row.spec.kind,
            spec=row.spec.model_dump(mode="json"),
            created=row.created,
            changed=row.changed,
            **vars(state),
            spent_today=today,
            spent_this_month=month,
        )

    @routes.get("")
    def list_teachers() -> list[TeacherAnswerBody]:
        """Every teacher."""
        return [answer(row) for row in hub.teaching.staff.all()]

    @routes.get("/{teacher}", responses=responses(NotFound))
    def get_teacher(teacher: str) -> TeacherAnswerBody:
        """One teacher."""
        return answer(hub.teaching.staff.get(teacher))

    @routes.put("/{teacher}", responses=responses(BadRequest))
    def put_teacher(teacher: str, spec: TeacherSpec) -> TeacherAnswerBody:
        """Make a teacher, or change one; channels name it in ``teaching.teachers``."""
        return answer(hub.teaching.staff.put(teacher, spec))

    @routes.delete("/{teacher}", status_code=204, responses=responses(NotFound))
    def remove_teacher(teacher: str) -> None:
        """Send a teacher away; what waits for it goes on to the next one."""
        hub.teaching.staff.remove(teacher)

    return routes
