"""Print what skerry and the named extras require of others, one a line: `requirements.py setup.cfg data client`."""

from __future__ import annotations

import configparser
import sys


def requirements(setup_cfg: str, extras: list[str]) -> list[str]:
    """Return the base install's requirements and those of the extras, sorted."""
    config = configparser.ConfigParser()
    with open(setup_cfg, encoding="utf-8") as file:  # noqa: PTH123 (a script that starts in a blink)
        config.read_file(file)
    blocks = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    return sorted({line.strip() for block in blocks for line in block.splitlines() if line.strip()})


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(sys.argv[1], sys.argv[2:])) + "\n")
