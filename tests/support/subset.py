"""Compares what was written with what was read back, where the reader may add defaults."""

from __future__ import annotations

import operator
from collections.abc import Callable


def is_subset(expected: object, actual: object, equal: Callable[[object, object], bool] = operator.eq) -> bool:
    """Returns whether `actual` has every value of `expected` at the same path; lists must have equal lengths."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return all(key in actual and is_subset(value, actual[key], equal) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(
            is_subset(*pair, equal) for pair in zip(expected, actual, strict=True)
        )
    return equal(expected, actual)
