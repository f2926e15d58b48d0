"""Makes the scripts in models/ importable; they are not a package and import each other by name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[4] / "models"))

import digits


@pytest.fixture(scope="session")
def data() -> tuple[digits.Digits, digits.Digits]:
    """(digits to train on, held-out digits)"""
    return digits.load()
