"""Whether everything that was asked for is there, whatever else is."""

from __future__ import annotations

import operator
from collections.abc import Callable


def within(asked: object, found: object, same: Callable[[object, object], bool] = operator.eq) -> bool:
    """Whether `found` has every value of `asked` at its place; lists are of the same length."""
    if isinstance(asked, dict) and isinstance(found, dict):
        return all(key in found and within(value, found[key], same) for key, value in asked.items())
    if isinstance(asked, list) and isinstance(found, list):
        return len(asked) == len(found) and all(within(*pair, same) for pair in zip(asked, found, strict=True))
    return same(asked, found)
