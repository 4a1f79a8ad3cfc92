from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from skerry.contract import decode, decode_environment
from skerry.probes import PROBES
from skerry_node import environment
from skerry_node.config import Limits
from skerry_node.launchers.launcher import Attempt, Image, Layout, Source, Spec
from skerry_node.policies import LEAST_PROCESSES, Relaxation
from skerry_node.sandbox import (
    GVISOR,
    HOME_VARIABLES,
    Profile,
    database_path,
    differences,
    holder_config,
    seccomp,
)

pytestmark = pytest.mark.unit

SOURCES = (Source("default", Path("/srv/a.csv"), "csv"), Source("scans", Path("/srv/scans"), "folder"))
IMAGE = Image("x", "sha256:x", volumes=("/data",), variables=("LANG",))
SPEC = Spec(Attempt(7, 2), 5, IMAGE, Path("/d"), Path("/t"), SOURCES, 70000, (70500,))
PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "sandbox.md"


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
        "/etc/hosts": True,
        "/mnt/databases/default/a.csv": True,
        "/mnt/databases/scans": True,
    }


def test_what_an_image_declares_as_a_volume_is_bounded_memory(intended) -> None:
    assert set(intended["Tmpfs"]) == {"/tmp", "/data"}
    assert all("noexec,nosuid,nodev,size=" in options for options in intended["Tmpfs"].values())


def test_system_calls_are_ours_and_nothing_is_gained(intended) -> None:
    first, second = intended["SecurityOpt"]
    assert first == "no-new-privileges"
    assert json.loads(second.removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"


def test_processes_are_bounded_by_user_too(intended) -> None:
    bounds = {limit["Name"]: limit["Hard"] for limit in intended["Ulimits"]}
    assert bounds["nproc"] == intended["PidsLimit"]
    assert bounds["core"] == 0
    assert set(bounds) == {"nproc", "nofile", "fsize", "core"}


DIGEST = f"sha256:{'a' * 64}"
RELAXED = Image("x", "sha256:x", digests=(DIGEST, "sha256:x"))


def test_the_runtime_has_room_for_its_threads() -> None:
    """They count as the container's until it is one; a holder with room for four was dead once in 500 starts."""
    assert holder_config("skerry/holder", 70001, {})["HostConfig"]["PidsLimit"] >= LEAST_PROCESSES


def relaxed(setting: str, value: object = True) -> dict:
    relaxation = Relaxation.model_validate({"digest": DIGEST, "setting": setting, "value": value})
    profile = Profile(Limits(), relaxations=[relaxation])
    assert profile.host_config(SPEC, "abc") == Profile(Limits()).host_config(SPEC, "abc")
    spec = Spec(SPEC.attempt, 5, RELAXED, Path("/d"), Path("/t"), SOURCES, 70000, (70500,))
    ours, strict = profile.host_config(spec, "abc"), Profile(Limits()).host_config(spec, "abc")
    return {name: value for name, value in ours.items() if value != strict[name]}


def test_what_is_relaxed_for_one_image() -> None:
    assert relaxed("memory", "4g") == {"Memory": 4 << 30, "MemorySwap": 4 << 30}
    assert relaxed("writable_root") == {"ReadonlyRootfs": False}
    assert relaxed("shared_memory", "1g") == {"ShmSize": 1 << 30}
    assert relaxed("engine_seccomp") == {"SecurityOpt": ["no-new-privileges"]}
    assert set(relaxed("processes", 4096)) == {"PidsLimit", "Ulimits"}
    assert set(relaxed("open_files", 65536)) == {"Ulimits"}
    assert "noexec" not in relaxed("executable_tmp")["Tmpfs"]["/tmp"]
    assert "size=4096" in relaxed("temporary", 4096)["Tmpfs"]["/tmp"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("user", 0),
        ("capabilities", ["SYS_ADMIN"]),
        ("engine_seccomp", False),
        ("writable_root", "yes please"),
        ("processes", "many"),
        ("processes", 31),
        ("processes", 1 << 40),
        ("memory", "-1"),
    ],
)
def test_what_can_not_be_relaxed(setting, value) -> None:
    with pytest.raises(ValueError, match=f"{setting}"):
        Relaxation.model_validate({"digest": DIGEST, "setting": setting, "value": value})


def rules(runtime: str = "runc") -> list[dict]:
    return json.loads(seccomp(runtime))["syscalls"]


def allowed(runtime: str = "runc") -> dict[str, list]:
    """Each allowed call, with the arguments under which it is."""
    found: dict[str, list] = {}
    for rule in rules(runtime):
        for name in rule["names"]:
            if rule["action"] == "SCMP_ACT_ALLOW":
                found.setdefault(name, []).append(rule.get("args"))
    return found


def test_no_call_is_allowed_twice_or_without_a_reason() -> None:
    assert all(rule["comment"] for rule in rules())
    assert [name for name, arguments in allowed().items() if len(arguments) > 1 and None in arguments] == []
    assert {rule["action"] for rule in rules()} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}


def test_no_other_kind_of_machine_slips_through() -> None:
    kinds = json.loads(seccomp())["archMap"]
    assert [kind["architecture"] for kind in kinds] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    assert not any(kind["subArchitectures"] for kind in kinds)


def test_the_page_names_what_is_refused_and_it_is_refused() -> None:
    section = PAGE.read_text().split("## System calls")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    names = {name for cell in cells for name in re.findall(r"`([a-z0-9_]+)`", cell)}
    bounded = {"socket", "clone", "personality", "mknod", "mknodat"}
    assert names & allowed().keys() == bounded
    assert all(None not in allowed()[name] for name in bounded)
    tried = {probe.name for probe in PROBES if probe.group == "system call"} - {"clone-user", "clone3-user"}
    assert tried <= names | {"modify_ldt"}


def test_under_gvisor_one_call_is_left_to_its_kernel_and_one_has_another_name() -> None:
    assert allowed(GVISOR).keys() - allowed().keys() == {"clone3", "pselect"}


def test_the_page_has_a_line_for_each_setting(intended) -> None:
    section = PAGE.read_text().split("## The profile")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    whole = Profile(Limits()).config(SPEC, "abc", {}, {})
    assert named == {*intended, *whole} - {"HostConfig", "Labels"}


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


@pytest.fixture
def whole() -> dict:
    """What the engine is asked for."""
    return Profile(Limits()).config(SPEC, "abc", {"INPUT_FILE": "x"}, {"skerry.run": "7"})


def described(whole: dict) -> dict:
    """A container as the engine describes it."""
    mounts = [
        {"Type": "bind", "Source": one["Source"], "Destination": one["Target"], "RW": not one["ReadOnly"], "Mode": ""}
        for one in whole["HostConfig"]["Mounts"]
    ]
    config = {name: copy.deepcopy(whole[name]) for name in ("User", "Env", "Healthcheck", "Labels")}
    config["Env"] += ["PATH=/usr/bin", "LANG=C.UTF-8"]
    return {
        "Image": whole["Image"],
        "Config": {**config, "Image": whole["Image"]},
        "HostConfig": seen_of(whole["HostConfig"]),
        "Mounts": mounts,
    }


def test_an_engine_that_does_as_it_is_told(whole) -> None:
    seen = described(whole)
    seen["HostConfig"]["Ulimits"].reverse()
    assert differences(whole, seen, IMAGE) == []


CHANGES = [
    ("CapDrop", None),
    ("CapAdd", ["SYS_ADMIN"]),
    ("Binds", ["/:/host"]),
    ("Privileged", True),
    ("NetworkMode", "host"),
    ("PidMode", "host"),
    ("UsernsMode", "host"),
    ("ReadonlyRootfs", False),
    ("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"]),
    ("SecurityOpt", ["no-new-privileges"]),
    ("Runtime", "another"),
    ("Memory", 0),
    ("Devices", [{"PathOnHost": "/dev/sda"}]),
    ("MaskedPaths", []),
    ("ReadonlyPaths", None),
    ("Mounts", []),
    ("SomethingNew", "host"),
]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_an_engine_that_does_something_else(whole, name, value) -> None:
    seen = described(whole)
    seen["HostConfig"][name] = value
    assert differences(whole, seen, IMAGE) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("User", ""),
        ("User", "0:0"),
        ("Healthcheck", {"Test": ["CMD", "/run-me"]}),
        ("Env", ["INPUT_FILE=x"]),
        ("Healthcheck", None),
    ],
)
def test_a_container_of_another_kind(whole, name, value) -> None:
    seen = described(whole)
    seen["Config"][name] = value
    assert differences(whole, seen, IMAGE) == [name]


def test_variables_that_neither_the_node_nor_the_image_asked_for(whole) -> None:
    """An engine adds its own proxies' addresses where its owner configured them."""
    seen = described(whole)
    seen["Config"]["Env"].append("HTTP_PROXY=http://proxy:3128")
    assert differences(whole, seen, IMAGE) == ["Env"]


def test_another_image_than_the_one_that_was_judged(whole) -> None:
    assert differences(whole, {**described(whole), "Image": "sha256:y"}, IMAGE) == ["Image"]


@pytest.mark.parametrize(
    "change", [{"RW": True, "Destination": "/mnt/databases/scans"}, {"Source": "/"}, {"Destination": "/host"}]
)
def test_a_mount_that_became_another(whole, change) -> None:
    seen = described(whole)
    seen["Mounts"][3] |= change
    assert differences(whole, seen, IMAGE) == ["Mounts"]


def test_a_mount_that_nobody_asked_for(whole) -> None:
    seen = described(whole)
    seen["Mounts"].append({"Type": "volume", "Destination": "/v", "RW": True})
    assert differences(whole, seen, IMAGE) == ["Mounts"]


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


def test_without_a_rule_that_grants_them_there_are_none(whole) -> None:
    assert whole["HostConfig"]["DeviceRequests"] == []
    seen = described(whole)
    seen["HostConfig"]["DeviceRequests"] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    assert differences(whole, seen, IMAGE) == ["DeviceRequests"]


def test_a_volume_of_the_image_hides_nothing_of_the_nodes() -> None:
    image = replace(IMAGE, volumes=("/data", "/mnt/data", "/x/../mnt/tmp/", "/mnt/databases/a/a.csv"))
    made = Profile(Limits()).host_config(
        replace(SPEC, image=image, sources=(Source("a", Path("/srv/a.csv"), "csv"),)), "h"
    )
    assert set(made["Tmpfs"]) == {"/tmp", "/data"}
