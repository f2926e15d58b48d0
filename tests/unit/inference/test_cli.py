"""The command up to where it connects to Ray: help, rejections, dry runs and conversion."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm_inference.checkpoint import load, save
from ddpm_inference.cli import main
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule
from ddpm_inference.models import build

ROOT = Path(__file__).resolve().parents[3]
SPEC = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=8, time_embedding="step")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save(path, build(SPEC).state_dict(), SPEC, TrainedSchedule(name="linear", timesteps=100))
    return path


def test_help_and_rejections_import_neither_ray_nor_torch() -> None:
    program = (
        "import sys\nfrom ddpm_inference.cli import main\n"
        "for arguments in (['--help'], ['--version'], ['--n_samples', '0'], ['convert', '--help']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "    print(sorted({'ray', 'torch', 's3fs'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines().count("[]") == 4


def test_the_script_of_the_guide_is_the_same_command() -> None:
    script = ROOT / "inference" / "run_ray_inference.py"
    ended = subprocess.run([sys.executable, script, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("ddpm-sample ")


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--model_path", str(checkpoint), "--out_dir", str(out), "--device", "cpu", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Unet, downs 4 8, time_emb_dim 4, time embedding step, images 1 x 8 x 8" in shown
    assert "ddpm, 100 of 100 timesteps, schedule linear, variance large" in shown
    assert "4 shards of at most 32 samples" in shown
    assert "nothing yet" in shown
    assert not out.exists()


def test_a_dry_run_on_device_auto_prints_both_plans(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["--model_path", str(checkpoint), "--out_dir", out, "--dry_run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["shards"] == "on cpu: 4 shards of at most 32 samples; on cuda: 1 shard of at most 512 samples"
    assert "0.25 GPU and 1 CPU" in plan["workers"]


def test_a_missing_checkpoint_is_rejected_without_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["--model_path", str(tmp_path / "none"), "--out_dir", str(out), "--ray_address", "None"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert "hint: " in output.err
    assert "Traceback" not in output.err
    assert not out.exists()


def test_a_flag_that_contradicts_the_checkpoint_is_rejected(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for flag, value in (("--timesteps", "50"), ("--img_size", "28"), ("--schedule", "cosine"), ("--downs", "9")):
        assert main(["--model_path", str(checkpoint), "--out_dir", str(out), flag, value]) == 2
        assert flag in capsys.readouterr().err
    assert not out.exists()


def test_an_unreachable_ray_is_exit_code_3(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model_path", str(checkpoint), "--out_dir", str(tmp_path / "out"), "--json"]
    assert main([*arguments, "--ray_address", "ray://127.0.0.1:1"]) == 3
    output = capsys.readouterr()
    assert "no Ray answers at ray://127.0.0.1:1" in output.err
    last = json.loads(output.out.splitlines()[-1])
    assert (last["event"], last["reason"], last["exitCode"]) == ("error", "Unschedulable", 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_convert_writes_a_checkpoint_with_all_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "net.pt", tmp_path / "net.safetensors"
    weights = build(SPEC).state_dict()
    weights["attention_int.bnorm.num_batches_tracked"] += 1
    torch.save(weights, source)
    arguments = ["convert", str(source), str(target), "--schedule", "sigmoid", "--timesteps", "300"]
    assert main([*arguments, "--model_name", "Unet", "--img-size", "8", "--time_embedding", "step"]) == 0
    written = load(target, ModelRequest(uri=str(target)))
    assert (written.spec, written.trained) == (SPEC, TrainedSchedule(name="sigmoid", timesteps=300))
    assert written.sha256 in capsys.readouterr().out
    assert main(arguments) == 2


def test_an_invalid_job_in_the_environment_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPM_JOB", "{}")
    assert main([]) == 2
    assert "DDPM_JOB" in capsys.readouterr().err
