"""A task as the dialect shows it (contract, section 2.9)."""

from __future__ import annotations

import json
from typing import Any

from skerry.wire import Status
from skerry_server.doors.handling import Call
from skerry_server.doors.vantage6.shapes import many, moment, one
from skerry_server.models import Task


def show(call: Call, task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "uuid": task.uuid,
        "name": task.name,
        "description": task.description,
        "image": task.image,
        "job_id": task.job_id,
        "created_at": moment(task.created_at),
        "status": task.status,
        "finished_at": moment(task.finished_at) if task.status is Status.COMPLETED else None,
        "collaboration": one(call, "collaboration", task.collaboration_id),
        "study": one(call, "study", task.study_id),
        "algorithm_store": one(call, "algorithmstore", task.store_id),
        "init_org": one(call, "organization", task.init_org_id),
        "init_user": one(call, "user", task.init_user_id),
        "parent": one(call, "task", task.parent_id),
        "children": many(call, "task", parent_id=task.id),
        "runs": many(call, "run", task_id=task.id),
        "results": many(call, "result", task_id=task.id),
        "databases": [_show_database(database) for database in task.databases],
    }


def _show_database(database: dict[str, Any]) -> dict[str, Any]:
    parameters = {key: value for key, value in database.items() if key != "label"}
    return {"label": database["label"], "parameters": json.dumps(parameters)}
