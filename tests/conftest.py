"""For all tests."""

import pytest

# Its asserts explain themselves like those of a test file.
pytest.register_assert_rewrite("tests.store_contract")
