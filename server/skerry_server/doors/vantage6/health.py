"""Version, health, and what is not there."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from skerry_server.doors.handling import Call, calls
from skerry_server.doors.vantage6 import answers
from skerry_server.errors import NotOffered
from skerry_server.policy import Kind
from skerry_server.server import own_version


@calls(answer=answers.Version)
def show_version(call: Call) -> dict[str, Any]:  # noqa: ARG001 - every handler has a call
    return {"version": own_version()}


@calls(answer=answers.Health)
def show_health(call: Call) -> dict[str, Any]:
    return {"database": call.server.database.answers()}


@calls(Kind.NODE, answer=answers.Nothing)
def vpn_profile(call: Call) -> None:  # noqa: ARG001 - every handler has a call
    raise NotOffered("There is no eduVPN here: skerry's nodes make their own network.")


def register(door: Blueprint) -> None:
    door.get("/version")(show_version)
    door.get("/health")(show_health)
    door.get("/vpn", endpoint="vpn_profile")(vpn_profile)
