"""The table of values in the chart's README, which hack/chart_readme.py generates from values.yaml."""

from __future__ import annotations

import pytest

from hack.chart_readme import CHART, MissingDescription, Value, readme, values

TEXT = """\
# Name.
name: digits

# Several
# lines.
group:
  # List.
  list: [1, 2]
"""


def test_readme_is_up_to_date() -> None:
    assert (CHART / "README.md").read_text() == readme(CHART), "run: python hack/chart_readme.py"


def test_comments_become_descriptions() -> None:
    assert list(values(TEXT)) == [
        Value("name", "digits", "Name."),
        Value("group", None, "Several lines."),
        Value("group.list", [1, 2], "List."),
    ]


@pytest.mark.parametrize("line", ["# Name.\n", "  # List.\n"])
def test_value_without_a_comment_is_an_error(line: str) -> None:
    with pytest.raises(MissingDescription, match=r"(name|group\.list) has no comment"):
        list(values(TEXT.replace(line, "")))
