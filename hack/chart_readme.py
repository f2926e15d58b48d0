"""Generates the table of values in the chart's README from values.yaml: `python hack/chart_readme.py`.

The comment above each value becomes its description.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).parents[1] / "charts" / "ddpm-ray"
BEGIN, END = "<!-- values: hack/chart_readme.py writes what follows -->", "<!-- end of values -->"

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z]\w*):(?: |$)")


class MissingDescription(Exception):
    """A value has no comment above it."""


class Value(NamedTuple):
    """One row of the table; `default` is None for a group of values."""

    name: str
    default: object
    description: str


def values(text: str) -> Iterator[Value]:
    """Yields the values of a values.yaml in their order there.

    Args:
        text: YAML in block style, indented by two spaces.

    Raises:
        MissingDescription: names the value.
    """
    defaults = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
            continue
        found = _KEY.match(line)
        if found:
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            name = ".".join(path)
            if not comment:
                raise MissingDescription(f"{name} has no comment above it in values.yaml: describe it there")
            default = defaults
            for key in path:
                default = default[key]
            yield Value(name, None if line.rstrip().endswith(":") else default, " ".join(comment))
        comment = []


def table(text: str) -> str:
    """Returns the table in Markdown."""
    lines = ["| value | default | what it is |", "| --- | --- | --- |"]
    for value in values(text):
        default = "" if value.default is None else f"`{json.dumps(value.default)}`"
        description = value.description.replace("|", "\\|")
        lines.append(f"| `{value.name}` | {default} | {description} |")
    return "\n".join(lines)


def readme(chart: Path) -> str:
    """Returns the README with the generated table."""
    text = (chart / "README.md").read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table((chart / 'values.yaml').read_text())}\n\n{END}{after}"


if __name__ == "__main__":
    try:
        (CHART / "README.md").write_text(readme(CHART))
    except MissingDescription as error:
        sys.exit(f"error: {error}")
