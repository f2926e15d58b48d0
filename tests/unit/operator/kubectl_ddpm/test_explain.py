"""`kubectl ddpm explain`: the plan as text and JSON, and errors with file, line and field."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ddpm_operator.kubectl_ddpm import main

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
SAMPLINGS = ROOT / "tests" / "fixtures" / "samplings"
REFUSED = yaml.safe_load((SAMPLINGS / "refused.yaml").read_text())["refused"]

Capture = pytest.CaptureFixture[str]


def explain(text: str, folder: Path, *options: str) -> int:
    path = folder / "sampling.yaml"
    path.write_text(text)
    return main(["explain", "-f", str(path), *options])


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_an_invalid_sampling_is_rejected(case: dict[str, object], tmp_path: Path, capsys: Capture) -> None:
    resource = {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": case.get("metadata", {"name": "digits"}),
        "spec": case["spec"],
    }
    assert explain(yaml.safe_dump(resource), tmp_path) == 2
    captured = capsys.readouterr()
    assert str(case["message"]) in captured.err
    assert captured.out == ""


def test_errors_are_reported_with_their_lines(tmp_path: Path, capsys: Capture) -> None:
    text = """\
apiVersion: ddpm-ray.io/v1alpha1
kind: DDPMSampling
metadata: {name: digits}
spec:
  model:
    uri: builtin://mnist
  samples: 100
  sampler:
    timesteps: 5
    # more than timesteps
    steps: 6
  podOverrides:
    tolerations:
    - key: a
    - kee: b
  resources:
    device: cuda
"""
    assert explain(text, tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"error: {tmp_path}/sampling.yaml:")[:35] for line in lines] == [
        "11: spec.sampler.steps: steps must ",
        "15: spec.podOverrides.tolerations[1",
        "16: spec.resources.gpus: device cud",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", ":2: expected ',' or ']'"),
        ("a: 1\na: 2", ":2: duplicate key a"),
        ("? {a: b}\n: c", ":1: a key must be a string"),
        ("a: \x01", "character 4 is not allowed in YAML"),
        ("a: &a [*a]", "not valid in a Kubernetes object"),
        ("a: !!binary aGk=", "not valid in a Kubernetes object"),
        ("a: !!python/object:os.system x", ":1: could not determine a constructor for the tag"),
        ("[" * 1000, "not valid in a Kubernetes object"),
        ("", "contains no DDPMSampling"),
        ("kind: Pod", "contains no DDPMSampling"),
        ("[1]", ":1: the document must be an object"),
        ("kind: DDPMSampling", ":1: spec is missing"),
    ],
)
def test_a_file_that_is_no_manifest_is_rejected(text: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    assert explain(text, tmp_path) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert "Traceback" not in stderr


def test_a_missing_file_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert main(["explain", "-f", str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/no.yaml: No such file or directory\n"


def test_a_binary_file_is_rejected(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert main(["explain", "-f", str(tmp_path / "a.yaml")]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_the_plan_is_printed_as_text(capsys: Capture) -> None:
    assert main(["explain", "-f", str(ROOT / "examples" / "gpu.yaml")]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "fifty-thousand 50,000 of s3://models/unet.safetensors, ddim, seed 0" in output
    assert "1 head 1 2Gi 0 4 workers 4 16Gi 1 total 17 66Gi 4" in output
    assert "196 shards of up to 256 samples on cuda, stored on s3://samples/fifty-thousand" in output
    assert "4 workers with 1 GPU each, 2 tasks per GPU." in output


def test_the_plan_is_one_json_document_per_sampling(tmp_path: Path, capsys: Capture) -> None:
    digits = (ROOT / "examples" / "digits.yaml").read_text()
    other = "---\nkind: ConfigMap\n---\n" + digits.replace("name: digits", "name: more")
    assert explain(digits + other, tmp_path, "--json") == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["name"], second["name"]) == ("digits", "more")
    assert {key: first["plan"][key] for key in ("device", "workers", "gpus", "batchSize", "shards")} == {
        "device": "cpu",
        "workers": 0,
        "gpus": 0,
        "batchSize": 32,
        "shards": 4,
    }
    assert first["pods"] == [{"role": "head", "count": 1, "cpu": "1", "memory": "2Gi", "gpus": 0}]
    assert first["output"] == {
        "claim": "digits-output",
        "size": "1Gi",
        "accessModes": ["ReadWriteOnce"],
        "retentionPolicy": "Retain",
    }


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO((ROOT / "examples" / "digits.yaml").read_text()))
    assert main(["explain", "-f", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "digits"


def test_the_kubectl_plugin_is_installed() -> None:
    plugin = Path(sys.executable).with_name("kubectl-ddpm")
    completed = subprocess.run(
        [plugin, "explain", "-f", ROOT / "examples" / "digits.yaml"], capture_output=True, text=True, check=True
    )
    assert completed.stdout.startswith("digits  100 of builtin://mnist, dpmpp, seed 0")


@pytest.mark.parametrize("arguments", [[], ["explain"], ["explain", "-f"], ["sing"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: kubectl ddpm" in capsys.readouterr().err
