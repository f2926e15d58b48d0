"""For all tests."""

import pytest

# Its asserts explain themselves like those of a test file.
pytest.register_assert_rewrite("tests.support.store_contract")

LONGEST_ID = 100


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Whole files are no names: a test's name is in the environment of all that it starts, which has a limit."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None
