"""What `import skerry` promises: the names in __all__, cheaply, and in an image that has the base install only."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import skerry

pytestmark = pytest.mark.unit

BASE_MODULES = (
    *("algorithm_client", "contract", "databases", "decorators", "entrypoint", "errors", "functions"),
    *("environment", "exceptions", "mock_client", "omop", "tables", "values"),
    *("outcomes", "output", "session", "testing", "transport", "wire", "cli.main"),
)
EXTRAS = ("pandas", "numpy", "pyarrow", "cryptography", "click", "rich", "docker", "pydantic", "yaml")


def python(code: str) -> subprocess.CompletedProcess[str]:
    blocked = textwrap.dedent(f"""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {EXTRAS!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Blocked())
    """)
    command = [sys.executable, "-c", blocked + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_is_sorted_and_true() -> None:
    assert skerry.__all__ == sorted(skerry.__all__)
    assert dir(skerry) == skerry.__all__
    for name in skerry.__all__:
        assert getattr(skerry, name).__name__ in {name, "UserClient"}


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        skerry.nope  # noqa: B018


@pytest.mark.parametrize("module", BASE_MODULES)
def test_the_base_install_imports_without_extras(module) -> None:
    done = python(f"import skerry.{module}")
    assert done.returncode == 0, done.stderr


def test_an_algorithm_starts_without_the_http_library() -> None:
    done = python("""
        from skerry import AlgorithmClient, central, data, info, partial
        import skerry.entrypoint
        assert "requests" not in sys.modules
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from skerry import UserClient", "client"),
        ("from skerry.databases import *; load(Database('a', 'a.csv', 'csv'))", "data"),
    ],
)
def test_a_missing_extra_is_named(code, extra) -> None:
    done = python(code)
    assert done.returncode == 1
    assert f'pip install "skerry[{extra}]"' in done.stderr.splitlines()[-1]


def test_the_command_without_its_extra_is_one_sentence() -> None:
    done = python("from skerry.cli.main import main; sys.exit(main(['task', 'list']))")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        'skerry: The command line needs skerry\'s "client" extra: pip install "skerry[client]"'
    ]
