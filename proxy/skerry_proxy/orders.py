"""An order: one run as the server's work call describes it (native protocol, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skerry.wire import Format, unb64
from skerry_proxy.fields import Fields


@dataclass(frozen=True, slots=True)
class Order:
    """What the server says about a run: claims, until an envelope confirms them.

    ``input`` is the stored payload, or None when it is too large to travel inside the order. ``keys_version`` changes
    when an organization of the collaboration has said something new about its keys.
    """

    run: int
    attempt: int
    organization: int
    node: int
    format: Format
    task: int
    uuid: str
    collaboration: int
    study: int | None
    store: int | None
    image: str
    databases: tuple[dict[str, Any], ...]
    init_organization: int
    init_user: int | None
    input: bytes | None
    token: str
    keys_version: str | None

    @classmethod
    def parse(cls, value: Any) -> Order:
        """Raises ValueError, naming the field."""
        fields = Fields(value, "The order")
        task = fields.nested("task")
        payload = fields.any("input")
        if payload is not None and not isinstance(payload, str):
            raise ValueError('The order: the field "input" must be a text or null.')
        return cls(
            run=fields.identifier("run"),
            attempt=fields.identifier("attempt"),
            organization=fields.identifier("organization_id"),
            node=fields.identifier("node_id"),
            format=Format(fields.choice("format", tuple(Format))),
            task=task.identifier("id"),
            uuid=task.text("uuid", 64),
            collaboration=task.identifier("collaboration_id"),
            study=task.optional_identifier("study_id"),
            store=task.optional_identifier("store_id"),
            image=task.text("image"),
            databases=tuple(task.objects("databases")),
            init_organization=task.identifier("init_org_id"),
            init_user=task.optional_identifier("init_user_id"),
            input=None if payload is None else unb64(payload),
            token=fields.text("token", 16384),
            keys_version=fields.optional_text("keys_version"),
        )
