"""``python -m skerry_proxy``."""

from __future__ import annotations

import sys

from skerry_proxy.main import main

sys.exit(main())
