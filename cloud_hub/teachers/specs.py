"""What a teacher is made of: one model of settings a kind. They are the schema of ``PUT /api/v1/teachers/{name}``.

No secret is in them: a key is named, and the hub's own settings say where it is (``teacher_keys``).
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

#: Questions that a teacher takes at a time, and threads that it has, at most.
MAX_BATCH, MAX_INSTANCES = 256, 64
#: Characters of a prompt.
MAX_PROMPT = 20_000
PROMPT = """Which of these labels is the right one for the input? Labels: {labels}

Input: {input}

Answer with JSON: {"label": one of the labels, "confidence": from 0 to 1}."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Machine(_Spec):
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="What one call may take at most, seconds.")
    instances: int = Field(default=1, ge=1, le=MAX_INSTANCES, description="Calls at a time.")


class PackageSpec(_Machine):
    """A model package, on the hub's own runtime."""

    kind: Literal["package"]
    release: str = Field(
        pattern=r"^sha256:[0-9a-f]{64}$", description="Digest of a release of this hub; it need not be on a channel."
    )
    batch: int = Field(default=32, ge=1, le=MAX_BATCH, description="Inputs of one run, at most.")
    providers: tuple[str, ...] = Field(
        default=(), description="Execution providers of which one has to run it; empty: the fastest of all."
    )
    threads: int = Field(default=0, ge=0, le=256, description="Threads of one run; 0: measured.")


class _Elsewhere(_Machine):
    """A teacher that is reached over HTTP, and may cost money."""

    url: str = Field(max_length=2000, description="Base of its addresses, http:// or https://.")
    key: str = Field(default="", max_length=64, description="Name of its key in the hub's `teacher_keys`; empty: none.")
    price_call: float = Field(default=0.0, ge=0, le=1e6, description="Price of a call.")
    spend_per_day: float | None = Field(default=None, ge=0, description="What it may cost in a day, UTC; null: any.")
    spend_per_month: float | None = Field(
        default=None, ge=0, description="What it may cost in a calendar month, UTC; null: any."
    )

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and not parts.password
        if not fine or not (value.isascii() and value.isprintable()) or " " in value or parts.query or parts.fragment:
            raise ValueError("it has to be an address that begins with https:// or http://, without a password in it")
        if parts.port == 0:
            raise ValueError("its port is none")
        return value.rstrip("/")


class OipSpec(_Elsewhere):
    """A model behind an Open Inference Protocol endpoint, over HTTP."""

    kind: Literal["oip"]
    model: str = Field(min_length=1, max_length=256, description="Name of the model there.")
    version: str = Field(default="", max_length=64, description="Version of the model; empty: the endpoint's choice.")
    batch: int = Field(default=1, ge=1, le=MAX_BATCH, description="Inputs of one call, at most.")
    inputs: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="Name of an input here → its name there, where they differ."
    )
    output: str = Field(default="", max_length=256, description="The output that says the class; empty: found by name.")
    labels: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        default=(),
        max_length=100_000,
        description="Names of its classes in order; empty: those of the model that asks.",
    )


class OpenAiSpec(_Elsewhere):
    """A language model behind an OpenAI-compatible endpoint: a service, or a server of your own."""

    kind: Literal["openai"]
    model: str = Field(min_length=1, max_length=256, description="Name of the model there.")
    instances: int = Field(default=4, ge=1, le=MAX_INSTANCES, description="Calls at a time.")
    prompt: str = Field(
        default=PROMPT,
        min_length=1,
        max_length=MAX_PROMPT,
        description="What it is told; `{labels}` and `{input}` are filled in.",
    )
    system: str = Field(default="", max_length=MAX_PROMPT, description="System message; empty: none.")
    answer: Literal["json_schema", "json_object", "text"] = Field(
        default="json_schema",
        description="How it is held to JSON: by a schema with the labels, by asking for JSON, or by the prompt alone.",
    )
    vision: bool = Field(default=True, description="Whether pictures are shown to it; else their numbers are written.")
    picture: tuple[int, ...] = Field(
        default=(),
        max_length=3,
        description="Shape of the picture that an input is which travels as a line of numbers.",
    )
    max_tokens: int = Field(default=200, ge=1, le=100_000, description="Tokens of an answer, at most.")
    token_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="Name under which the endpoint wants that; newer models want the second."
    )
    temperature: float | None = Field(default=0.0, ge=0, le=2, description="Null: it is not sent.")
    price_in: float = Field(default=0.0, ge=0, le=1e9, description="Price of a million tokens that it reads.")
    price_out: float = Field(default=0.0, ge=0, le=1e9, description="Price of a million tokens that it writes.")
    picture_tokens: int = Field(
        default=2000, ge=0, le=1_000_000, description="Tokens of a picture, at most: what is set aside before a call."
    )


class PersonSpec(_Spec):
    """People, who take what they are to label from a queue."""

    kind: Literal["person"]
    hold_s: float = Field(default=86_400.0, ge=1, le=1e9, description="How long an item waits for them, seconds.")
    claim_s: float = Field(
        default=900.0, ge=1, le=86_400, description="How long an item is whose who took it, seconds."
    )
    most: int = Field(default=1000, ge=1, le=1_000_000, description="Items that wait, at most.")
    most_bytes: int = Field(default=256 << 20, ge=1, description="Bytes of their inputs, at most.")
    picture: tuple[int, ...] = Field(
        default=(),
        max_length=3,
        description="Shape of the picture that an input is which travels as a line of numbers.",
    )


MachineSpec = PackageSpec | OipSpec | OpenAiSpec
"""Who answers at once."""
TeacherSpec = Annotated[MachineSpec | PersonSpec, Field(discriminator="kind")]
ANY_SPEC: TypeAdapter[MachineSpec | PersonSpec] = TypeAdapter(TeacherSpec)
