"""Back-ups of key files."""

from __future__ import annotations

import pytest

from skerry import backups
from skerry.backups import lock, unlock
from skerry.cli.main import main
from skerry.errors import KeyFileError
from skerry.wire import b64, canonical

pytestmark = pytest.mark.unit
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(backups, "_COST", 2**4)


@pytest.mark.usefixtures("_quick")
def test_only_the_passphrase_opens_it(alice) -> None:
    kept = lock(alice.dump(), PASSPHRASE)
    assert unlock(kept, PASSPHRASE) == alice.dump()
    assert b"PRIVATE KEY" not in kept
    assert lock(alice.dump(), PASSPHRASE) != kept
    with pytest.raises(KeyFileError, match="wrong"):
        unlock(kept, f"{PASSPHRASE} ")


@pytest.mark.usefixtures("_quick")
def test_an_altered_one_is_refused(alice) -> None:
    kept = bytearray(lock(alice.dump(), PASSPHRASE))
    kept[200] ^= 1
    with pytest.raises(KeyFileError):
        unlock(bytes(kept), PASSPHRASE)


def test_guessing_costs_memory_and_time() -> None:
    assert (backups._COST, backups._BLOCKS) == (2**17, 8)


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(KeyFileError, match="12 characters"):
        lock(b"x", "short")


@pytest.mark.parametrize("value", [{}, {"v": 2}, {"v": 1}, {"v": 1, "salt": 1, "nonce": "", "content": ""}, []])
def test_what_is_no_backup(value) -> None:
    text = f"-----BEGIN SKERRY BACKUP-----\n{b64(canonical(value))}\n-----END SKERRY BACKUP-----\n".encode()
    for one in (text, b"", b"-----BEGIN SKERRY BACKUP-----\n!\n-----END SKERRY BACKUP-----"):
        with pytest.raises(KeyFileError):
            unlock(one, PASSPHRASE)


@pytest.mark.usefixtures("_quick")
def test_by_the_command_line(tmp_path, alice, capsys) -> None:
    file, kept, again, words = (tmp_path / name for name in ("key.pem", "kept", "again.pem", "words"))
    alice.save(file)
    words.write_text(f"{PASSPHRASE}\n")
    for command in (("backup", file, kept), ("restore", kept, again)):
        assert main(["key", *map(str, command), "--passphrase-file", str(words)]) == 0
    assert again.read_bytes() == file.read_bytes()
    assert [path.stat().st_mode & 0o777 for path in (kept, again)] == [0o600, 0o600]
    assert PASSPHRASE not in capsys.readouterr().out
    assert main(["key", "restore", str(kept), str(again), "--passphrase-file", str(words)]) == 1
