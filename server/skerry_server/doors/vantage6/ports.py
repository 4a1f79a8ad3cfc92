"""Ports of runs, and where the runs of a job reach each other (contract, sections 2.10 and 7.4)."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry_server.doors.fields import Body, Flag, Id, Query, Short
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.vantage6 import answers
from skerry_server.models import Port
from skerry_server.policy import Kind
from skerry_server.services import ports

Attempt = Annotated[int, Field(ge=1, lt=2**31)]


class NewPort(Body):
    """``attempt`` is ours: what a node writes about a run is fenced by it."""

    port: Annotated[int, Field(ge=1, le=65_535)]
    run_id: Id
    attempt: Attempt
    label: Short | None = None


class PortQuery(Query):
    run_id: Id
    attempt: Attempt


class AddressQuery(Query):
    only_children: Flag = False
    only_parent: Flag = False
    only_siblings: Flag = False
    only_self: Flag = False
    include_children: Flag = False
    include_parent: Flag = False
    label: Short | None = None


@calls(Kind.NODE, body=NewPort, answer=answers.RunPort)
def create(call: Call, body: NewPort) -> Reply:
    port = ports.open_port(call.session, call.actor, body.run_id, body.attempt, number=body.port, label=body.label)
    return Reply({"id": port.id, "port": port.port, "label": port.label}, 201)


@calls(Kind.NODE, query=PortQuery, answer=answers.Message)
def delete(call: Call, query: PortQuery) -> dict[str, Any]:
    ports.close_ports(call.session, call.actor, query.run_id, query.attempt)
    return {"msg": "Ports removed"}


@calls(Kind.RUN, query=AddressQuery, answer=answers.Addresses)
def addresses(call: Call, query: AddressQuery) -> dict[str, Any]:
    flags = [name for name in ports.FLAGS if getattr(query, name)]
    return {"addresses": [_show(port) for port in ports.addresses(call.session, call.actor, flags, query.label)]}


def register(door: Blueprint) -> None:
    door.post("/port", endpoint="port_create")(create)
    door.delete("/port", endpoint="port_delete")(delete)
    door.get("/vpn/algorithm/addresses", endpoint="vpn_addresses")(addresses)


def _show(port: Port) -> dict[str, Any]:
    run = port.run
    return {
        "port": port.port,
        "label": port.label,
        "ip": port.ip or (run.node.ip if run.node is not None else None),
        "organization_id": run.organization_id,
        "task_id": run.task_id,
        "parent_id": run.task.parent_id,
    }
