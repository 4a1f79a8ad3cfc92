from __future__ import annotations

import pytest

from skerry.errors import ConfigurationError, KeyChanged, KeyNotConfirmed
from skerry.keys import OrganizationKeys
from skerry.pins import Pins
from skerry.statements import Announced

pytestmark = pytest.mark.unit


@pytest.fixture
def keys(alice) -> OrganizationKeys:
    return OrganizationKeys.from_wire(alice.organization_keys(1))


@pytest.fixture
def other_keys(bob) -> OrganizationKeys:
    return OrganizationKeys.from_wire(bob.organization_keys(1))


def test_first_use_is_trusted_and_kept(tmp_path, keys, other_keys) -> None:
    path = tmp_path / "pins.json"
    assert Pins(path).trust(Announced(keys)) == keys
    again = Pins(path)
    assert again.get(1) == keys
    with pytest.raises(KeyChanged, match=other_keys.fingerprint):
        again.trust(Announced(other_keys))
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_owner_confirms_a_change(tmp_path, keys, other_keys) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.trust(Announced(keys))
    pins.confirm(other_keys)
    assert pins.trust(Announced(other_keys)) == other_keys
    with pytest.raises(KeyChanged):
        pins.trust(Announced(keys))


def test_confirmation_can_be_required(tmp_path, keys) -> None:
    pins = Pins(tmp_path / "pins.json", require_confirmed=True)
    with pytest.raises(KeyNotConfirmed, match=keys.fingerprint):
        pins.trust(Announced(keys))
    assert pins.get(1) is None
    pins.confirm(keys)
    assert pins.trust(Announced(keys)) == pins.get(1) == keys


def test_a_broken_file_is_an_error_not_a_fresh_start(tmp_path) -> None:
    path = tmp_path / "pins.json"
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="back-up"):
        Pins(path)
