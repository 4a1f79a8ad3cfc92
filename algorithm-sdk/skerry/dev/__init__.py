"""A whole federation on one machine, for algorithm authors and for tests."""

from skerry.dev.federation import Federation, Places, down, running, up
from skerry.dev.plan import Database, Plan, database

__all__ = ["Database", "Federation", "Places", "Plan", "database", "down", "running", "up"]
