"""Point 6: twenty tasks at once; containers run in parallel up to the configured limit."""

from __future__ import annotations

from collections import defaultdict

import pytest

pytestmark = pytest.mark.acceptance


def test_twenty_tasks_at_once(federation, probe_image) -> None:
    client = federation.client()
    tasks = [
        client.task.create(
            organizations=federation.organization_ids,
            name=f"task number {number}",
            image=probe_image,
            collaboration=federation.collaboration_id,
            input_={"method": "sleep", "kwargs": {"seconds": 1.0}},
        )
        for number in range(20)
    ]
    spans = defaultdict(list)
    for task in tasks:
        for organization, result in zip(federation.organization_ids, task.wait(timeout=300).results(), strict=True):
            spans[organization].append((result["started"], result["ended"]))
    for organization in federation.organization_ids:
        assert len(spans[organization]) == 20
        assert 1 < most_at_once(spans[organization]) <= federation.parallel_runs


def test_more_central_functions_than_a_node_has_places(federation, probe_image) -> None:
    """Each waits for a child at that very node."""
    client, here = federation.client(), federation.organization_ids[:1]
    echo = {"method": "echo", "kwargs": {"value": 7}, "organizations": here}
    tasks = [
        client.task.create(
            organizations=here,
            name=f"central {number}",
            image=probe_image,
            collaboration=federation.collaboration_id,
            input_={"method": "children", "kwargs": echo},
        )
        for number in range(2 * federation.parallel_runs)
    ]
    assert [task.wait(timeout=200).results() for task in tasks] == [[[7]]] * len(tasks)


def most_at_once(spans: list[tuple[float, float]]) -> int:
    moments = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most
