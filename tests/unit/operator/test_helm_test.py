"""What `helm test` says of a sampling's output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client import Damaged
from ddpm_operator.helm_test import check, main

SAMPLES = b"four samples"


def stored(folder: Path, samples: int = 4, sha256: str | None = None) -> DDPMSampling:
    """A sampling of four, with its output in a folder."""
    (folder / "samples.npy").write_bytes(SAMPLES)
    file = {"bytes": len(SAMPLES), "sha256": sha256 or hashlib.sha256(SAMPLES).hexdigest()}
    manifest = {"version": 1, "n_samples": samples, "shards": [], "files": {"samples.npy": file}}
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    return sampling({"output": {"uri": "pvc://a/b", "manifestSha256": hashlib.sha256(text).hexdigest()}})


def sampling(status: dict[str, Any]) -> DDPMSampling:
    return DDPMSampling.from_document(
        {
            "apiVersion": "ddpm-ray.io/v1alpha1",
            "kind": "DDPMSampling",
            "metadata": {"name": "test", "namespace": "research", "uid": "1", "resourceVersion": "1"},
            "spec": {"model": {"uri": "builtin://mnist"}, "samples": 4},
            "status": {"phase": "Succeeded", **status},
        }
    )


def test_an_output_that_is_as_its_manifest_says_is_well(tmp_path: Path) -> None:
    assert check(stored(tmp_path), tmp_path).startswith("4 samples in 1 files, as the manifest ")


def test_too_few_samples_are_not(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="3 samples, not 4"):
        check(stored(tmp_path, samples=3), tmp_path)


def test_a_file_of_other_content_is_not(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match=r"samples\.npy is not as the manifest says"):
        check(stored(tmp_path, sha256="0" * 64), tmp_path)


def test_another_manifest_is_not(tmp_path: Path) -> None:
    seen = stored(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(Damaged, match="and the status says"):
        check(seen, tmp_path)


def test_a_folder_without_a_manifest_is_not(tmp_path: Path) -> None:
    seen = stored(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(Damaged, match="there is no manifest"):
        check(seen, tmp_path)


def test_a_status_without_a_manifest_is_not(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="names no manifest"):
        check(sampling({}), tmp_path)


def test_wrong_usage_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["research"]) == 2
    assert "usage" in capsys.readouterr().err
