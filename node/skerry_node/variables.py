"""Which names of variables an owner may choose for algorithms: rules without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from skerry import contract

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_CONTRACT = frozenset(
    {
        contract.INPUT_FILE,
        contract.OUTPUT_FILE,
        contract.TOKEN_FILE,
        contract.TEMPORARY,
        contract.HOST,
        contract.PORT,
        contract.API_PATH,
        contract.REQUESTED_LABELS,
        contract.ALL_LABELS,
        contract.GATE_SOCKET,
        *contract.PROXIES,
        *contract.NO_PROXIES,
        "RUN_CONTEXT_FILE",
        "GATE_SOCKET",
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    }
)
_OF_A_DATABASE = re.compile(r".+_(DATABASE_URI|DATABASE_TYPE|DB_PARAM_.+|QUERY|SHEET_NAME|PREPROCESSING|GATE_ADDRESS)")
_IMAGES_OWN = frozenset({contract.PACKAGE, "PATH", "HOME", "HOSTNAME", "USER", "LOGNAME", "PWD", "SHELL", "TERM"})
_DECIDES_WHAT_IS_RUN = ("LD_", "PYTHON", "BASH_", "GCONV_", "GLIBC_", "SKERRY_")


def describe_problem(name: str) -> str | None:
    """Why the owner can't set a variable of that name for all algorithms; None when all is well."""
    if not _NAME.fullmatch(name):
        return "write it in capital letters, digits and underscores, beginning with a letter"
    if name in _CONTRACT or _OF_A_DATABASE.fullmatch(name):
        return "the container contract gives this name its value"
    if name in _IMAGES_OWN:
        return "this name belongs to the image and its system"
    if name.startswith(_DECIDES_WHAT_IS_RUN):
        return "such a name decides which code is run"
    return None


def describe_label_problem(label: str) -> str | None:
    """Why no database can have the label; None when all is well."""
    name = contract.database_variable(label, "DATABASE_URI")
    if contract.is_plain(name) or name.startswith(_DECIDES_WHAT_IS_RUN):
        return f"its variables, such as {name}, would be taken for the system's own; choose another label"
    return None


def name_variables(label: str, parameters: Mapping[str, str]) -> list[str]:
    """The variables in which a container finds a database, what belongs to it, and what a task asks of it."""
    details = [*contract.DATABASE_DETAILS, *map(contract.parameter, parameters)]
    return [contract.database_variable(label, detail) for detail in details]
