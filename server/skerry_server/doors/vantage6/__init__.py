"""The main door: the REST dialect of vantage6 4.x, so that its clients work unchanged."""

from __future__ import annotations

from flask import Blueprint

from skerry_server.doors.vantage6 import (
    blobs,
    collaborations,
    health,
    login,
    nodes,
    organizations,
    ports,
    recovery,
    runs,
    stores,
    studies,
    tasks,
    users,
)


def blueprint() -> Blueprint:
    door = Blueprint("vantage6", __name__)
    for part in (
        login,
        recovery,
        organizations,
        collaborations,
        studies,
        nodes,
        users,
        tasks,
        runs,
        ports,
        stores,
        health,
        blobs,
    ):
        part.register(door)
    return door
