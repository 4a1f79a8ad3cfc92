"""Runs in the VPN of their job: their addresses, and what their organizations say of them."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry_server.doors.fields import Body
from skerry_server.doors.handling import Call, calls
from skerry_server.policy import Kind
from skerry_server.services import peering

Attempt = Annotated[int, Field(ge=1, lt=2**31)]


class AddressBody(Body):
    attempt: Attempt


class StatementBody(Body):
    attempt: Attempt
    statement: dict[str, Any]


@calls(Kind.NODE, body=AddressBody)
def reserve(call: Call, id_: int, body: AddressBody) -> dict[str, Any]:
    subnet = call.server.settings.vpn.subnet
    address = peering.reserve_address(call.session, call.actor, id_, body.attempt, subnet)
    return {"address": str(address), "subnet": str(subnet)}


@calls(Kind.NODE, body=StatementBody)
def introduce(call: Call, id_: int, body: StatementBody) -> dict[str, Any]:
    others = peering.introduce(call.session, call.actor, id_, body.attempt, statement=body.statement, now=call.now)
    return {"version": others.version, "statements": list(others.statements)}


def register(door: Blueprint) -> None:
    door.post("/run/<id:id_>/peer")(reserve)
    door.put("/run/<id:id_>/peer")(introduce)
