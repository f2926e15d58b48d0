"""What is told of the chart where charts are looked for."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

import yaml

from ddpm_operator.api import DDPMSampling
from ddpm_operator.crd import crd
from hack.chart_readme import CHART

CHART_YAML: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())


def told(annotation: str) -> Any:  # noqa: ANN401 - as YAML has it
    return yaml.safe_load(CHART_YAML["annotations"][f"artifacthub.io/{annotation}"])


def test_the_icon_is_the_picture_beside_the_chart() -> None:
    kind, _, data = CHART_YAML["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    picture = base64.b64decode(data, validate=True)
    assert picture.strip() == (CHART / "icon.svg").read_bytes().strip()
    root = ElementTree.fromstring(picture)  # noqa: S314 - the chart's own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter())) > 1


def test_every_example_is_a_sampling_that_the_operator_takes() -> None:
    samplings = [DDPMSampling.from_document(document) for document in told("crdsExamples")]
    assert [it.metadata.name for it in samplings] == ["digits"]


def test_the_kinds_that_are_told_of_are_those_that_the_chart_brings() -> None:
    made = crd()
    versions = [it["name"] for it in made["spec"]["versions"]]
    found = [(it["kind"], it["version"], it["name"]) for it in told("crds")]
    assert found == [(made["spec"]["names"]["kind"], version, made["metadata"]["name"]) for version in versions]
