from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from skerry.contract import decode, decode_environment
from skerry_node import environment
from skerry_node.config import Limits
from skerry_node.launchers.launcher import Attempt, Image, Layout, Source, Spec
from skerry_node.sandbox import HOME_VARIABLES, Profile, database_path, differences

pytestmark = pytest.mark.unit

SOURCES = (Source("default", Path("/srv/a.csv"), "csv"), Source("scans", Path("/srv/scans"), "folder"))
SPEC = Spec(
    Attempt(7, 2), 5, Image("x", "sha256:x", volumes=("/data",)), Path("/d"), Path("/t"), SOURCES, 70000, (70500,)
)


@pytest.fixture
def intended() -> dict:
    return Profile(Limits()).host_config(SPEC, "abc")


def test_the_profile(intended) -> None:
    assert intended["CapDrop"] == ["ALL"]
    assert intended["NetworkMode"] == "container:abc"
    assert intended["ReadonlyRootfs"]
    assert intended["Memory"] == intended["MemorySwap"] == 2 << 30
    assert "no-new-privileges" in intended["SecurityOpt"]


def test_only_the_databases_that_are_named_are_mounted_and_read_only(intended) -> None:
    mounts = {mount["Target"]: mount["ReadOnly"] for mount in intended["Mounts"]}
    assert mounts == {
        "/mnt/data": False,
        "/mnt/tmp": False,
        "/mnt/databases/default/a.csv": True,
        "/mnt/databases/scans": True,
    }


def test_what_an_image_declares_as_a_volume_is_bounded_memory(intended) -> None:
    assert set(intended["Tmpfs"]) == {"/tmp", "/data"}
    assert all("noexec,nosuid,nodev,size=" in options for options in intended["Tmpfs"].values())


def seen_of(intended: dict) -> dict:
    """As an engine says it: with all that nobody asked for."""
    return {
        **copy.deepcopy(intended),
        "Binds": None,
        "CapAdd": None,
        "Devices": [],
        "PidMode": "",
        "OomScoreAdj": 0,
        "ConsoleSize": [0, 0],
        "Runtime": "runc",
        "MaskedPaths": ["/proc/kcore", "/sys/firmware"],
        "ReadonlyPaths": ["/proc/bus", "/proc/sys"],
    }


def test_an_engine_that_does_as_it_is_told(intended) -> None:
    seen = seen_of(intended)
    seen["Ulimits"].reverse()
    assert differences(intended, seen) == []


CHANGES = [
    ("CapDrop", None),
    ("CapAdd", ["SYS_ADMIN"]),
    ("Binds", ["/:/host"]),
    ("Privileged", True),
    ("NetworkMode", "host"),
    ("PidMode", "host"),
    ("UsernsMode", "host"),
    ("ReadonlyRootfs", False),
    ("SecurityOpt", ["seccomp=unconfined"]),
    ("Memory", 0),
    ("Devices", [{"PathOnHost": "/dev/sda"}]),
    ("MaskedPaths", []),
    ("ReadonlyPaths", None),
    ("Mounts", []),
    ("SomethingNew", "host"),
]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_an_engine_that_does_something_else(intended, name, value) -> None:
    assert differences(intended, {**seen_of(intended), name: value}) == [name]


def test_a_mount_that_became_writable(intended) -> None:
    seen = seen_of(intended)
    seen["Mounts"][2]["ReadOnly"] = False
    assert differences(intended, seen) == ["Mounts"]


LAYOUT = Layout("/mnt/data/task-000000007", "/mnt/tmp", {"default": "/mnt/databases/default/a.csv"}, 8642)


def build(requested: dict, labels=("default", "other")) -> dict[str, str]:
    return environment.build(LAYOUT, SOURCES[:1], labels, [requested])


def test_the_environment_of_the_contract() -> None:
    variables = {name: decode(value) for name, value in build({"label": "default", "query": None}).items()}
    assert variables == {
        "INPUT_FILE": "/mnt/data/task-000000007/input",
        "OUTPUT_FILE": "/mnt/data/task-000000007/output",
        "TOKEN_FILE": "/mnt/data/task-000000007/token",
        "TEMPORARY_FOLDER": "/mnt/tmp",
        "HOST": "http://127.0.0.1",
        "PORT": "8642",
        "API_PATH": "",
        "USER_REQUESTED_DATABASE_LABELS": "default",
        "DB_LABELS": "default,other",
        "DEFAULT_DATABASE_URI": "/mnt/databases/default/a.csv",
        "DEFAULT_DATABASE_TYPE": "csv",
    }


def test_what_users_send_never_becomes_a_name() -> None:
    names = set(build({"label": "default", "LD_PRELOAD": "x", "PKG_NAME": "os"}))
    assert names == set(build({"label": "default"}))


def test_details_of_a_database() -> None:
    variables = build({"label": "default", "query": "SELECT 1", "preprocessing": [{"function": "x"}]})
    assert decode(variables["DEFAULT_QUERY"]) == "SELECT 1"
    assert decode(variables["DEFAULT_PREPROCESSING"]) == '[{"function": "x"}]'


def test_parameters_of_a_database_that_the_task_names() -> None:
    named = Source("default", Path("/srv/a.csv"), "csv", {"schema": "public"})
    variables = environment.build(LAYOUT, [named], ["default", "other"], [{"label": "default"}])
    assert decode(variables["DEFAULT_DB_PARAM_SCHEMA"]) == "public"
    assert not [name for name in variables if name.startswith("OTHER_")]


@pytest.mark.parametrize(("name", "path"), [("a.sqlite", "a.sqlite"), ("a.db", "a.db.sqlite")])
def test_an_sqlite_file_looks_as_vantage6s_tools_know_one(name, path) -> None:
    source = Source("default", Path("/srv") / name, "sqlite")
    shown = database_path(source.label, source.path.name, source.type)
    layout = Layout("/mnt/data/task-000000007", "/mnt/tmp", {"default": shown}, 8642)
    variables = environment.build(layout, [source], ["default"], [{"label": "default", "query": "SELECT 1"}])
    assert decode(variables["DEFAULT_DATABASE_URI"]) == f"/mnt/databases/default/{path}"
    assert decode(variables["DEFAULT_DATABASE_TYPE"]) == "sql"


@pytest.mark.parametrize("value", HOME_VARIABLES.values())
def test_no_home_variable_looks_encoded(value) -> None:
    with pytest.raises(ValueError, match="encoded"):
        decode(value)


def test_variables_of_the_owner() -> None:
    variables = environment.build(LAYOUT, (), (), (), {"SITE": "north", "TZ": "Europe/Berlin", "LC_ALL": "C.UTF-8"})
    assert decode(variables["SITE"]) == "north"
    assert (variables["TZ"], variables["LC_ALL"]) == ("Europe/Berlin", "C.UTF-8")
    assert decode_environment(variables)["LC_ALL"] == "C.UTF-8"


@pytest.mark.parametrize(("gpus", "count"), [(-1, -1), (2, 2)])
def test_gpus_are_asked_of_the_engine(gpus, count) -> None:
    [request] = Profile(Limits()).host_config(replace(SPEC, gpus=gpus), "holder")["DeviceRequests"]
    assert request["Count"] == count
    assert request["Capabilities"] == [["gpu"]]


def test_without_a_rule_that_grants_them_there_are_none() -> None:
    assert Profile(Limits()).host_config(SPEC, "holder")["DeviceRequests"] == []
    seen = {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}
    assert differences({"DeviceRequests": []}, seen) == ["DeviceRequests"]
