"""The pod that reads a claim or a bucket for a person, and what it is asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.uri import claim_path
from ddpm_operator.client.helper_pod import helper_pod
from ddpm_operator.manifests.naming import claim_name
from ddpm_operator.manifests.render import OUTPUT_PATH


def reader_pod(sampling: DDPMSampling, image: str) -> dict[str, JsonValue]:
    """With the output's claim, read-only, or with the credentials of its bucket."""
    claim, secret = _claim(sampling), sampling.spec.credentials_secret_ref
    credentials = secret.name if secret and not claim else None
    return helper_pod(sampling, image, "reader", claim, OUTPUT_PATH, credentials=credentials)


def read_command(sampling: DDPMSampling, names: Sequence[str]) -> list[str]:
    """The command that writes the stored files to standard output, one after another."""
    program = files(__package__).joinpath("reader_program.py").read_text()
    return ["python", "-c", program, _folder(sampling), *names]


def _claim(sampling: DDPMSampling) -> str | None:
    uri = sampling.spec.output.uri
    place = claim_path(uri or "")
    if place:
        return place.claim
    return None if uri else claim_name(sampling.metadata)


def _folder(sampling: DDPMSampling) -> str:
    """Where the samples are, as the pod sees it."""
    uri = sampling.spec.output.uri
    place = claim_path(uri or "")
    if place:
        return f"{OUTPUT_PATH}/{place.path}"
    return uri.rstrip("/") if uri else OUTPUT_PATH
