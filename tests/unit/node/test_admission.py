from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from skerry_node.admission import NotAdmitted, Request, admit
from skerry_node.config import Database
from skerry_node.launchers.launcher import Image
from skerry_node.policies import Policies

pytestmark = pytest.mark.unit

REQUEST = Request("registry.example:5000/team/mean:1", "mean", ["default"], 1, 2, 7, signed=True)
DIGEST = f"sha256:{'a' * 64}"
IMAGE = Image(REQUEST.image, f"sha256:{'b' * 64}", (DIGEST, f"sha256:{'b' * 64}"))
NAME = "registry.example:5000/team/mean"


def policies(**values) -> Policies:
    return Policies.model_validate(values)


def databases(**only_for) -> list[Database]:
    return [
        Database.model_validate({"label": "default", "uri": "a.csv", "type": "csv", "only_for": only_for}),
        Database.model_validate({"label": "other", "uri": "b.csv", "type": "csv"}),
    ]


def test_all_is_allowed_that_no_list_names() -> None:
    admit(policies(), databases(), REQUEST)
    admit(policies(), databases(), REQUEST, IMAGE)


def rule(**values) -> dict:
    return {"allowed_algorithms": [{"algorithm": NAME, **values}]}


REFUSED = [
    ({"allowed_users": [8]}, {}, "user 7 .policies.allowed_users"),
    ({"allowed_users": []}, {}, "user 7"),
    ({"allowed_users": [7]}, {"user": None}, "user None"),
    ({"allowed_organizations": [1]}, {}, "organization 2 .policies.allowed_organizations"),
    ({"allowed_organizations": [2]}, {}, "organization 1"),
    ({}, {"databases": ["patients"]}, 'no database "patients"; it has: default, other'),
    ({}, {"databases": ["default", "default"]}, "twice"),
    ({}, {"signed": False}, "signed"),
    ({"allowed_algorithms": []}, {}, "the image .* .policies.allowed_algorithms.[.]$"),
    (rule(functions=["median"]), {}, 'the function "mean" with the image .*allowed_algorithms: functions'),
    (rule(functions=[]), {}, 'the function "mean"'),
    (rule(databases=["other"]), {}, 'the database "default" with the image .*: databases'),
    (rule(databases=["default"]), {"databases": ["default", "other"]}, 'the database "default" beside "other"'),
    (rule(users=[8]), {}, "tasks of user 7 with the image .*: users"),
    (rule(organizations=[1]), {}, "tasks of organization 1 and 2 with the image .*: organizations"),
    ({"allowed_algorithm_stores": ["https://store.example"]}, {}, "algorithms of no store"),
    ({"allowed_algorithm_stores": ["https://store.example"]}, {"store": "https://store.example.evil"}, "evil"),
    ({"allowed_algorithm_stores": []}, {"store": "https://store.example"}, "store.example"),
]


@pytest.mark.parametrize(("policy", "change", "sentence"), REFUSED)
def test_refusals_say_which_rule_refused(policy, change, sentence) -> None:
    with pytest.raises(NotAdmitted, match=sentence):
        admit(policies(**policy), databases(), replace(REQUEST, **change), IMAGE)


def test_a_refusal_says_nothing_of_other_rules() -> None:
    rules = [{"algorithm": NAME, "functions": ["secret_function"]}, {"algorithm": "secret/image"}]
    with pytest.raises(NotAdmitted) as caught:
        admit(policies(allowed_algorithms=rules), databases(), REQUEST)
    assert "secret" not in str(caught.value)


ONLY_FOR = [
    ({"algorithms": ["team/mean"]}, "is not for the image registry.example:5000/team/mean:1 .databases: only_for.alg"),
    ({"functions": ["median"]}, 'is not for the function "mean"'),
    ({"users": [8]}, "is not for tasks of user 7"),
    ({"organizations": [2]}, "is not for tasks of organization 1 and 2"),
    ({"functions": ["mean"], "users": []}, "is not for tasks of user 7"),
    ({"algorithms": [f"{NAME}@sha256:{'c' * 64}"]}, "is not for the image"),
]


@pytest.mark.parametrize(("only_for", "sentence"), ONLY_FOR)
def test_a_database_is_for_those_whom_its_owner_names(only_for, sentence) -> None:
    with pytest.raises(NotAdmitted, match=f'database "default" {sentence}'):
        admit(policies(), databases(**only_for), REQUEST, IMAGE)
    admit(policies(), databases(**only_for), replace(REQUEST, databases=["other"]), IMAGE)


def test_a_database_for_what_is_asked() -> None:
    only_for = {"algorithms": [f"{NAME}@{DIGEST}"], "functions": ["mean"], "users": [7], "organizations": [1, 2]}
    admit(policies(), databases(**only_for), REQUEST)
    admit(policies(), databases(**only_for), REQUEST, IMAGE)


def test_unsigned_tasks_where_the_owner_allows_them() -> None:
    admit(policies(unsigned_tasks="allow"), databases(), replace(REQUEST, signed=False))


def test_a_store_that_the_owner_names() -> None:
    allowed = policies(allowed_algorithm_stores=["https://store.example"])
    admit(allowed, databases(), replace(REQUEST, store="https://store.example/"))


def test_the_first_rule_that_fits_decides() -> None:
    rules = [
        {"algorithm": NAME, "functions": ["median"]},
        {"algorithm": NAME, "functions": ["mean"], "users": [7], "approve_first": True},
        NAME,
    ]
    assert admit(policies(allowed_algorithms=rules), databases(), REQUEST).approve_first
    assert not admit(policies(allowed_algorithms=rules), databases(), replace(REQUEST, user=8)).approve_first


def test_rules_are_not_pieced_together() -> None:
    """One allows the function, the other the user: none allows this user this function."""
    rules = [
        {"algorithm": NAME, "functions": ["mean"], "users": [8]},
        {"algorithm": NAME, "functions": [], "users": [7]},
    ]
    with pytest.raises(NotAdmitted, match="user 7"):
        admit(policies(allowed_algorithms=rules), databases(), REQUEST)


ALLOWING = [
    "registry.example:5000/team/mean:1",
    "registry.example:5000/team/mean",
    f"registry.example:5000/team/mean@{DIGEST}",
    f"registry.example:5000/team/mean:9@{DIGEST}",  # a digest says more than a tag
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
    r"^registry",
    f"registry.example:5000/team/mean@sha256:{'c' * 64}",
    f"registry.example:5000/other@{DIGEST}",
]


def allows(entry: str, image: Image) -> bool:
    try:
        admit(policies(allowed_algorithms=[entry]), databases(), replace(REQUEST, image=image.reference), image)
    except NotAdmitted:
        return False
    return True


@pytest.mark.parametrize("entry", ALLOWING)
def test_images_that_an_entry_allows(entry) -> None:
    admit(policies(allowed_algorithms=[entry]), databases(), REQUEST)
    assert allows(entry, IMAGE)


@pytest.mark.parametrize("entry", NOT_ALLOWING)
def test_images_that_an_entry_does_not_allow(entry) -> None:
    assert not allows(entry, IMAGE)


SAME = [
    ("mean", "docker.io/library/mean"),
    ("docker.io/library/mean", "mean"),
    ("docker.io/mean", "index.docker.io/library/mean:3"),
    ("team/mean", "docker.io/team/mean"),
    ("docker.io/team/mean:latest", "team/mean"),
    ("team/mean:latest", "team/mean:latest"),
    (r"team/[a-z]+", "docker.io/team/mean:latest"),
    (r"docker\.io/team/.*", "team/mean:1"),
    ("localhost/mean", "localhost/mean:2"),
    ("registry.example/mean", f"registry.example/mean@{DIGEST}"),
]
OTHER = [
    ("mean", "docker.io/team/mean"),
    ("mean", "localhost/mean"),
    ("mean", "docker.io.evil/library/mean"),
    ("library.evil/mean", "mean"),
    ("team/mean:latest", "team/mean:1"),
    ("team/mean:1", "team/mean"),
    ("team/mean:1", f"team/mean:1@{DIGEST}"),  # an engine ignores the tag: this may be any image of that name
    ("team/mean", "team/mean/evil"),
    ("team/mean", "team/MEAN"),
    ("registry.example:5000/team/mean:1", "registry.example:5000/TEAM/mean:1"),
    (r"team/mean:\d", "team/mean:1\n"),
    ("team/mean:1", "team/mean:1\n"),
    (r"team/.*|other", "evil/other"),
    ("mean", ""),
]


@pytest.mark.parametrize(("entry", "reference"), SAME)
def test_other_spellings_of_the_same_image(entry, reference) -> None:
    assert allows(entry, replace(IMAGE, reference=reference))


@pytest.mark.parametrize(("entry", "reference"), OTHER)
def test_no_spelling_is_a_way_around(entry, reference) -> None:
    assert not allows(entry, replace(IMAGE, reference=reference))


@pytest.mark.parametrize("entry", ["", "Team/mean", "mean ", "team/mean:1@sha256:12", "("])
def test_an_entry_that_can_mean_no_image_is_refused(entry) -> None:
    with pytest.raises(ValidationError, match="is not"):
        policies(allowed_algorithms=[entry])


def test_an_image_that_nobody_allows_is_not_pulled() -> None:
    for entries in (["other"], []):
        with pytest.raises(NotAdmitted):
            admit(policies(allowed_algorithms=entries), databases(), REQUEST)


def test_the_port_of_the_gate_is_the_gates() -> None:
    with pytest.raises(NotAdmitted, match="8642"):
        admit(policies(), databases(), REQUEST, replace(IMAGE, ports=(8642,)))


def test_an_image_does_not_take_all_ports() -> None:
    with pytest.raises(NotAdmitted, match="exposes 8000 ports"):
        admit(policies(), databases(), REQUEST, replace(IMAGE, ports=tuple(range(1, 8001))))
