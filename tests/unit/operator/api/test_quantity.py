"""Quantities have the same values as in Kubernetes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api.quantity import binary, parse


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", "2"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("2.", "2"),
        ("4Gi", str(4 * 2**30)),
        ("0.5Gi", str(2**29)),
        ("4G", "4e9"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1e18"),
        ("1Ei", str(2**60)),
        ("100k", "1e5"),
        ("-1", "-1"),
        ("1n", "1e-9"),
    ],
)
def test_quantity_is_parsed(text: str, number: str) -> None:
    assert parse(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["", "two", "1 Gi", "1gi", "1K", "4GB", "1e", "0x10", "1_000", "\u0661", "1e999", "9" * 33, "Gi", "1.5.5"],
)
def test_invalid_quantity_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid quantity"):
        parse(text)


@settings(deadline=None)
@given(st.integers(0, 2**70))
def test_bytes_round_trip(number: int) -> None:
    assert parse(binary(number)) == number


def test_bytes_use_the_largest_exact_unit() -> None:
    assert [binary(n) for n in (0, 1000, 1024, 3 * 2**30, 2**40)] == ["0", "1000", "1Ki", "3Gi", "1Ti"]
