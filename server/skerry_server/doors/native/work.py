"""The node's one call for everything that it should do, and its good-bye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry.audit import Head
from skerry.wire import INLINE_LIMIT, Refusal, b64
from skerry_server import tokens
from skerry_server.doors.fields import Body, Id
from skerry_server.doors.handling import Call, Wait, calls
from skerry_server.models import Run
from skerry_server.policy import Kind
from skerry_server.services import organizations, work
from skerry_server.services.peers import Others

_MOST = 10_000
_PAUSE = 1.0


class Held(Body):
    run: Id
    attempt: Annotated[int, Field(ge=0, lt=2**31)]
    peers: Annotated[str, Field(max_length=64)] | None = None


class HeadBody(Body):
    """How far the node's own audit chain has come."""

    writer: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    sequence: Annotated[int, Field(ge=1, lt=2**53)]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WorkBody(Body):
    capacity: Annotated[int, Field(ge=0, le=1000)] = 0
    holding: Annotated[list[Held], Field(max_length=_MOST)] = Field(default_factory=list)
    jobs: Annotated[list[Id], Field(max_length=_MOST)] = Field(default_factory=list)
    wait: Annotated[float, Field(ge=0, le=50, strict=False)] = 25
    head: HeadBody | None = None
    refuses: Annotated[Refusal, Field(strict=False)] | None = None


class Empty(Body):
    """Nothing."""


@calls(Kind.NODE, body=WorkBody)
def find_work(call: Call, body: WorkBody) -> dict[str, Any] | Wait:
    known = {held.run: held.peers for held in body.holding if held.peers is not None}
    report = work.Report(
        body.capacity, {held.run: held.attempt for held in body.holding}, body.jobs, known, body.refuses
    )
    ticket = call.server.hub.ticket(work.topics(call.actor.id, report))
    found = work.find_work(call.session, call.actor, report, call.server.lease, call.now)
    if body.head is not None and call.server.anchors.due(call.actor.id, body.head.hash, call.now):
        work.witness(call.session, call.actor, Head(body.head.writer, body.head.sequence, body.head.hash))
    version = _keys_version(call, found.runs)
    answer = {
        "runs": [{**_order(call, run), "keys_version": version} for run in found.runs],
        "stop": [{"run": stop.run_id, "attempt": stop.attempt, "reason": stop.reason} for stop in found.stop],
        "finished_jobs": found.finished_jobs,
        "peers": [describe_others(others) for others in found.peers],
        "lease_seconds": call.server.settings.leases.seconds,
        "head": call.server.database.trail.head(call.session).as_dict(),
    }
    again = call.server.told.repeats(call.actor.id, (found.stop, [others.version for others in found.peers]))
    if not found.something:
        return Wait(answer, ticket, body.wait)
    if found.runs or (found.pressing and not again):
        return answer
    return Wait(answer, ticket, min(body.wait, _PAUSE))


@calls(Kind.NODE, body=Empty)
def leave(call: Call, body: Empty) -> dict[str, Any]:  # noqa: ARG001 - it must be a JSON object
    work.leave(call.session, call.actor, call.now)
    return {"msg": "Good-bye."}


def describe_others(others: Others) -> dict[str, Any]:
    return {
        "run": others.run_id,
        "attempt": others.attempt,
        "version": others.version,
        "statements": list(others.statements),
    }


def register(door: Blueprint) -> None:
    door.post("/node/work")(find_work)
    door.post("/node/leave")(leave)


def _keys_version(call: Call, runs: Sequence[Run]) -> str | None:
    """All runs of a node are of its one collaboration."""
    return organizations.keys_version(call.session, runs[0].collaboration_id) if runs else None


def _order(call: Call, run: Run) -> dict[str, Any]:
    task, small = run.task, run.input.size <= INLINE_LIMIT
    return {
        "run": run.id,
        "attempt": run.attempt,
        "organization_id": run.organization_id,
        "node_id": run.node_id,
        "format": task.format,
        "task": {
            "id": task.id,
            "uuid": task.uuid,
            "parent_uuid": task.parent.uuid if task.parent is not None else None,
            "job_id": task.job_id,
            "parent_id": task.parent_id,
            "name": task.name,
            "image": task.image,
            "collaboration_id": task.collaboration_id,
            "study_id": task.study_id,
            "store_id": task.store_id,
            "store_url": task.store.url if task.store is not None else None,
            "init_org_id": task.init_org_id,
            "init_user_id": task.init_user_id,
            "databases": task.databases,
        },
        "input": b64(call.server.payloads.load(run.input)) if small else None,
        "input_size": run.input.size,
        "token": tokens.for_run(run, call.server.run_token_lifetime),
        "token_expires_in": int(call.server.run_token_lifetime.total_seconds()),
    }
