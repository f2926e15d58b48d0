"""Fixtures of the operator's unit tests: specs, metadata and valid samplings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm_operator.api import DDPMSampling, Metadata, Spec

SAMPLINGS = Path(__file__).parents[2] / "fixtures" / "samplings"

MakeSpec = Callable[..., Spec]


def spec_of(**fields: Any) -> Spec:  # noqa: ANN401 - any YAML
    """Returns a spec of 100 digits in which the given fields of YAML are replaced."""
    return Spec.from_document({"model": {"uri": "builtin://mnist"}, "samples": 100} | fields)


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    return spec_of


@pytest.fixture(scope="session")
def metadata() -> Metadata:
    return Metadata(name="digits", namespace="research", uid="0e2f7b1c-9c4e-4a57-8d7e-5b1f6c2d3e4f")


@pytest.fixture(scope="session")
def accepted() -> list[DDPMSampling]:
    documents = yaml.safe_load_all((SAMPLINGS / "accepted.yaml").read_text())
    return [DDPMSampling.from_document(document) for document in documents]
