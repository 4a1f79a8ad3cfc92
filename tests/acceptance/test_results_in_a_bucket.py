"""A federation whose server keeps large payloads in a bucket of a real store that speaks S3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml
from devfederation import DevFederation
from objectstores import ObjectStore
from walks import contents

pytestmark = pytest.mark.acceptance
SIZE = 24_000_000
"""Bytes; more than one part of an upload to S3."""


@pytest.fixture(scope="module")
def bucket(s3_store: ObjectStore) -> str:
    return s3_store.make_bucket()


@pytest.fixture(scope="module")
def federation(dev: Any, probe_image: object, s3_store: ObjectStore, bucket: str) -> Iterator[DevFederation]:
    with dev("--nodes", "1") as made:
        [path] = made.server_folder.glob("*.yaml")
        made.end_server()
        store = s3_store.settings(made.server_folder, bucket)
        with path.open("a") as file:
            yaml.safe_dump({"blob_store": store}, file)
        made.restart()
        yield made


def run(federation: DevFederation, method: str, **arguments: Any) -> Any:
    task = federation.client().task.create(
        organizations=federation.organization_ids,
        name=method,
        image="skerry-tests/probe",
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": arguments},
    )
    return task.wait(timeout=120, progress=False)


def test_large_payloads_pass_by_the_bucket_and_nowhere_else(
    federation: DevFederation, s3_store: ObjectStore, bucket: str
) -> None:
    [result] = run(federation, "numbers", count=SIZE // 8).results()
    assert np.array_equal(result["weights"][0], np.arange(SIZE // 8))
    text = "0123456789abcdef" * (SIZE // 16)
    assert run(federation, "digest", text=text).results() == [hashlib.sha256(text.encode()).hexdigest()]
    assert len(s3_store.names(bucket)) == 2
    assert list(contents(federation.server_folder / "payloads")) == []


def test_small_ones_stay_with_the_server(federation: DevFederation, s3_store: ObjectStore, bucket: str) -> None:
    before = s3_store.names(bucket)
    assert run(federation, "echo", value="small").results() == ["small"]
    assert s3_store.names(bucket) == before


def test_a_task_that_is_deleted_takes_its_objects_along(
    federation: DevFederation, s3_store: ObjectStore, bucket: str
) -> None:
    before = s3_store.names(bucket)
    task = run(federation, "numbers", count=SIZE // 8)
    assert len(s3_store.names(bucket)) == len(before) + 1
    federation.client().task.delete(task["id"])
    assert s3_store.names(bucket) == before
