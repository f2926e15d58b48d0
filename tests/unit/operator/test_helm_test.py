"""The check of a sampling's stored output in `helm test`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client import Damaged
from ddpm_operator.helm_test import check_output, main

SAMPLES = b"four samples"


def store_output(folder: Path, samples: int = 4, sha256: str | None = None) -> DDPMSampling:
    """Stores the output of four samples in a folder; returns the sampling."""
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


def test_a_complete_output_passes(tmp_path: Path) -> None:
    assert check_output(store_output(tmp_path), tmp_path).startswith("4 samples in 1 file match the manifest ")


def test_too_few_samples_fail(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="3 samples, not 4"):
        check_output(store_output(tmp_path, samples=3), tmp_path)


def test_a_modified_file_fails(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match=r"samples\.npy differs from the manifest"):
        check_output(store_output(tmp_path, sha256="0" * 64), tmp_path)


def test_a_modified_manifest_fails(tmp_path: Path) -> None:
    complete = store_output(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(Damaged, match="but the status says"):
        check_output(complete, tmp_path)


def test_a_missing_manifest_fails(tmp_path: Path) -> None:
    complete = store_output(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(Damaged, match="there is no manifest"):
        check_output(complete, tmp_path)


def test_a_status_without_a_manifest_fails(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="names no manifest"):
        check_output(sampling({}), tmp_path)


def test_wrong_usage_prints_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["research"]) == 2
    assert "usage" in capsys.readouterr().err
