from __future__ import annotations

from dataclasses import replace

import pytest

from skerry_node.admission import NotAdmitted, Request, admit, admit_image, may_admit_image
from skerry_node.config import Policies
from skerry_node.launchers.launcher import Image

pytestmark = pytest.mark.unit

REQUEST = Request("registry.example:5000/team/mean:1", "mean", ["default"], 1, 2, 7, signed=True)
DIGEST = f"sha256:{'a' * 64}"
IMAGE = Image(REQUEST.image, f"sha256:{'b' * 64}", (DIGEST, f"sha256:{'b' * 64}"))


def policies(**values) -> Policies:
    return Policies.model_validate(values)


def test_all_is_allowed_that_no_list_names() -> None:
    admit(policies(), ["default"], REQUEST)
    admit_image(policies(), IMAGE)


REFUSED = [
    ({"allowed_users": [8]}, {}, "user 7"),
    ({"allowed_users": []}, {}, "user 7"),
    ({"allowed_users": [7]}, {"user": None}, "user None"),
    ({"allowed_organizations": [1]}, {}, "organization 2"),
    ({"allowed_organizations": [2]}, {}, "organization 1"),
    ({"allowed_functions": ["median"]}, {}, '"mean"'),
    ({}, {"databases": ["patients"]}, 'no database "patients"; it has: default'),
    ({}, {"databases": ["default", "default"]}, "twice"),
    ({}, {"signed": False}, "signed"),
]


@pytest.mark.parametrize(("policy", "change", "sentence"), REFUSED)
def test_refusals_say_why(policy, change, sentence) -> None:
    with pytest.raises(NotAdmitted, match=sentence):
        admit(policies(**policy), ["default"], replace(REQUEST, **change))


def test_unsigned_tasks_where_the_owner_allows_them() -> None:
    admit(policies(unsigned_tasks="allow"), ["default"], replace(REQUEST, signed=False))


ALLOWING = [
    "registry.example:5000/team/mean:1",
    "registry.example:5000/team/mean",
    f"registry.example:5000/team/mean@{DIGEST}",
    r"registry\.example:5000/team/.*",
    ".*",
]
NOT_ALLOWING = [
    "registry.example:5000/team/mean:2",
    "registry.example:5000/team/mea",
    "team/mean",
    "mean",
    "registry.example",
    "registry.example:5000/team/[a-z]*",  # a pattern matches the whole name, tag included
    r"example.*",
    f"registry.example:5000/team/mean@sha256:{'c' * 64}",
    f"registry.example:5000/other@{DIGEST}",
    "",
]


@pytest.mark.parametrize("entry", ALLOWING)
def test_images_that_an_entry_allows(entry) -> None:
    assert may_admit_image(policies(allowed_algorithms=[entry]), IMAGE.reference)
    admit_image(policies(allowed_algorithms=[entry]), IMAGE)


@pytest.mark.parametrize("entry", NOT_ALLOWING)
def test_images_that_an_entry_does_not_allow(entry) -> None:
    with pytest.raises(NotAdmitted, match="does not admit the image"):
        admit_image(policies(allowed_algorithms=[entry]), IMAGE)


@pytest.mark.parametrize("reference", ["registry.example:5000/TEAM/mean:1", "registry.example:5000/team/mean:1\n"])
def test_case_and_line_ends_are_no_way_around(reference) -> None:
    allowed = policies(allowed_algorithms=["registry.example:5000/team/mean:1", r"registry\.example:5000/team/mean:\d"])
    with pytest.raises(NotAdmitted):
        admit_image(allowed, replace(IMAGE, reference=reference))


def test_an_image_that_nobody_allows_is_not_pulled() -> None:
    assert not may_admit_image(policies(allowed_algorithms=["other"]), IMAGE.reference)
    assert not may_admit_image(policies(allowed_algorithms=[]), IMAGE.reference)


def test_the_port_of_the_gate_is_the_gates() -> None:
    with pytest.raises(NotAdmitted, match="8642"):
        admit_image(policies(), replace(IMAGE, ports=(8642,)))
