"""Chart.yaml: the icon, and the Artifact Hub annotations about CRDs and examples."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

import yaml

from ddpm_operator.api import DDPMSampling
from ddpm_operator.crd import crd
from hack.chart_readme import CHART

CHART_YAML: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())


def artifacthub(annotation: str) -> Any:  # noqa: ANN401 - parsed YAML
    return yaml.safe_load(CHART_YAML["annotations"][f"artifacthub.io/{annotation}"])


def test_icon_is_the_svg_file_of_the_chart() -> None:
    kind, _, data = CHART_YAML["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    svg = base64.b64decode(data, validate=True)
    assert svg.strip() == (CHART / "icon.svg").read_bytes().strip()
    root = ElementTree.fromstring(svg)  # noqa: S314 - a trusted file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter())) > 1


def test_examples_are_valid_samplings() -> None:
    samplings = [DDPMSampling.from_document(document) for document in artifacthub("crdsExamples")]
    assert [sampling.metadata.name for sampling in samplings] == ["digits"]


def test_listed_crds_are_those_of_the_chart() -> None:
    definition = crd()
    kind, name = definition["spec"]["names"]["kind"], definition["metadata"]["name"]
    listed = [(entry["kind"], entry["version"], entry["name"]) for entry in artifacthub("crds")]
    assert listed == [(kind, version["name"], name) for version in definition["spec"]["versions"]]
