"""The chart's README tells of the values as they are."""

from __future__ import annotations

import pytest

from hack.chart_readme import CHART, Undescribed, Value, readme, values

TEXT = """\
# Who.
who: me

# Where,
# exactly.
where:
  # How high.
  above: [1, 2]
"""


def test_the_readme_is_that_of_todays_values() -> None:
    assert (CHART / "README.md").read_text() == readme(CHART), "run: python hack/chart_readme.py"


def test_a_values_comment_is_its_description() -> None:
    assert list(values(TEXT)) == [
        Value("who", "me", "Who."),
        Value("where", None, "Where, exactly."),
        Value("where.above", [1, 2], "How high."),
    ]


@pytest.mark.parametrize("line", ["# Who.\n", "  # How high.\n"])
def test_a_value_without_a_comment_is_named(line: str) -> None:
    with pytest.raises(Undescribed, match=r"(who|where\.above) has no comment"):
        list(values(TEXT.replace(line, "")))
