"""For load balancers and supervisors: whether the process lives, and whether it can serve. Neither asks for a token."""

from __future__ import annotations

from flask import Blueprint

from skerry_server.doors.handling import Call, Reply, calls


@calls()
def show_life(call: Call) -> dict[str, bool]:  # noqa: ARG001 - every handler has a call
    """Asks nothing of the database: one that is away is no reason to end the process."""
    return {"alive": True}


@calls()
def show_readiness(call: Call) -> Reply:
    """503 where it should get no requests now; what is not true says why."""
    found = call.server.is_ready()
    ready = all(found.values())
    return Reply({"ready": ready, **found}, 200 if ready else 503)


def register(door: Blueprint) -> None:
    door.get("/health/live")(show_life)
    door.get("/health/ready")(show_readiness)
