"""URIs of the hub: the API accepts what the driver parses, and refuses what it refuses."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ddpm_inference.checkpoint import hub_uri
from ddpm_inference.errors import InvalidSpec
from ddpm_operator.api.uri import ModelUri

ModelUris: TypeAdapter[str] = TypeAdapter(ModelUri)
ACCEPTED = [
    "hf://google/ddpm-cifar10-32",
    "hf://google/ddpm-cifar10-32/",
    "hf://google/ddpm-cifar10-32@main",
    "hf://google/ddpm-cifar10-32@feature%2Fema/unet",
    "hf://google/ddpm-cifar10-32@refs/pr/3/unet",
    "hf://google/ddpm-cifar10-32@" + "0" * 40,
    "hf://o_rg/na.me/a@b/c",
]
REFUSED = [
    "hf://",
    "hf://google",
    "hf:///name",
    "hf://org/",
    "hf://org/name@",
    "hf://org/name@a^b",
    "hf://org/-name",
    "hf://org/name?x=1",
    "hf://org/name/unet#x",
    "hf://org/name/../other",
    "hf://org/name/a//b",
    "hf://datasets/org/name",
    "hf://spaces/name",
]


@pytest.mark.parametrize("uri", ACCEPTED)
def test_uri_of_a_model_is_accepted(uri: str) -> None:
    assert ModelUris.validate_python(uri) == uri
    hub_uri.parse(uri)


@pytest.mark.parametrize("uri", REFUSED)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        ModelUris.validate_python(uri)
    with pytest.raises(InvalidSpec):
        hub_uri.parse(uri)
