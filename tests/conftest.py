"""Configuration of pytest for all tests."""

import pytest

# pytest explains failed asserts in test files only, unless a module is registered.
pytest.register_assert_rewrite("tests.support.store_contract")

MAX_ID_LENGTH = 100


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Shortens the ids of long parameters: the environment of child processes holds the test's id, and has a limit."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > MAX_ID_LENGTH else None
