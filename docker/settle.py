"""Inside an image that is being built: put a folder on Python's path and compile what is in it.

A read-only container can't write .pyc, and without them an import takes two to three times as long.
"""

from __future__ import annotations

import compileall
import site
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def settle(folder: str) -> None:
    packages = Path(site.getsitepackages()[0])
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "skerry.pth").write_text("/opt/skerry/lib\n")
    compileall.compile_dir(folder, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


if __name__ == "__main__":
    settle(sys.argv[1])
