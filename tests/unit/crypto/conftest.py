"""Identities with short RSA keys: making a 4096-bit one takes seconds."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from skerry.keys import Identity


def make_identity() -> Identity:
    return Identity(generate_private_key(public_exponent=65537, key_size=2048), Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
def alice() -> Identity:
    """Organization 1."""
    return make_identity()


@pytest.fixture(scope="session")
def bob() -> Identity:
    """Organization 2."""
    return make_identity()


@pytest.fixture(scope="session")
def carol() -> Identity:
    """Organization 3."""
    return make_identity()
