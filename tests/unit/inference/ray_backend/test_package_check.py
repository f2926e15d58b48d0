"""Which packages a node must have, and in which versions."""

from __future__ import annotations

import re

import pytest

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.ray_backend.node_packages import NodePackages, find_packages
from ddpm_inference.ray_backend.package_check import require_packages


def test_missing_packages_are_named_with_the_install_command() -> None:
    found = NodePackages("3.11.7", {"numpy": "2.4.0", "s3fs": None, "safetensors": None}, None)
    with pytest.raises(ResourcesUnavailable, match=r"lack s3fs, safetensors, torch") as rejected:
        require_packages(found)
    assert "pip install 's3fs>=" in rejected.value.hint
    assert "'torch>=" in rejected.value.hint


@pytest.mark.parametrize(
    ("name", "version", "required"),
    [
        ("torch", "2.9.1+cpu", "'torch>=2.10'"),
        ("torch", "1.13.0", "'torch>=2.10'"),
        ("torch", "unknown", "'torch>=2.10'"),
        ("ray", "2.53.9", "'ray[default]>=2.54'"),
    ],
)
def test_a_vulnerable_version_is_rejected(name: str, version: str, required: str) -> None:
    packages: dict[str, str | None] = {"ray": "2.54.0"} | ({name: version} if name == "ray" else {})
    found = NodePackages("3.11.7", packages, version if name == "torch" else "2.10.0")
    message = f"{name} {re.escape(version)}, which has known vulnerabilities"
    with pytest.raises(ResourcesUnavailable, match=message) as rejected:
        require_packages(found)
    assert required in rejected.value.hint


def test_the_oldest_allowed_versions_are_accepted() -> None:
    assert require_packages(NodePackages("3.11.7", {"ray": "2.54.0"}, "2.10.0+cpu")) == "2.10.0+cpu"


def test_another_version_of_this_package_is_rejected() -> None:
    found = NodePackages("3.11.7", {"ray": "2.54.0", "ddpm-inference": "0.0.1"}, "2.10.0")
    with pytest.raises(ResourcesUnavailable, match=r"have ddpm-inference 0\.0\.1, but the driver has ") as rejected:
        require_packages(found)
    assert rejected.value.hint == "run the same image on all of them"


def test_this_machine_has_what_workers_need() -> None:
    import torch

    assert require_packages(find_packages(["numpy", "safetensors"])) == torch.__version__
