"""Compares what is installed with the known vulnerabilities (pip-audit, from PyPI), and fails on any.

Where no database answers nothing can be compared: that is said, and is no failure, unless AUDIT=required is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

COMMAND = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner=off", "--format=json"]


def main() -> int:
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return unknown(done.stderr.strip().rpartition("\n")[2])
    compared = [one for one in packages if "skip_reason" not in one]
    for one in compared:
        for found in one["vulns"]:
            say(f"{one['name']} {one['version']}: {found['id']}, fixed in {found['fix_versions'] or 'none'}")
    if any(one["vulns"] for one in compared):
        return 1
    if not compared:
        return unknown("the index in use has no database")
    say(f"{len(compared)} of {len(packages)} packages compared, no known vulnerability")
    return 0


def say(text: str) -> None:
    sys.stdout.write(f"audit: {text}\n")


def unknown(why: str) -> int:
    say(f"nothing was compared, since no database of vulnerabilities answers ({why[:200]})")
    return int(os.environ.get("AUDIT") == "required")


if __name__ == "__main__":
    sys.exit(main())
