"""The command up to where it connects to Ray: help, rejections, dry runs and conversion."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm_inference.checkpoint import load, save
from ddpm_inference.checkpoint.safetensors_file import encode
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


@pytest.mark.parametrize(
    ("flags", "missing"), [("--schedule linear", "--timesteps"), ("--timesteps 1000", "--schedule")]
)
def test_convert_wants_schedule_and_timesteps_together(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, missing: str
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "to"), *flags.split()]) == 2
    assert f"error: {missing} is missing\n" in capsys.readouterr().err


def test_convert_names_flags(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", str(checkpoint), str(tmp_path / "to")]
    for flag, value in (("--img_size", "0"), ("--time_emb_dim", "1"), ("--timesteps", "0")):
        assert main([*arguments, "--schedule", "linear", "--timesteps", "5", flag, value]) == 2
        assert f"error: {flag} must be greater than or equal to" in capsys.readouterr().err


def without_metadata(checkpoint: Path) -> Path:
    path = checkpoint.with_name("bare.safetensors")
    path.write_bytes(encode(load(checkpoint, ModelRequest(uri="x")).weights, None))
    return path


def test_convert_notes_an_assumed_schedule_only_if_none_is_given(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(without_metadata(checkpoint)), "--img_size", "8"]
    assert main([*arguments, str(tmp_path / "a"), "--schedule", "cosine", "--timesteps", "50"]) == 0
    assert "noise schedule" not in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "b")]) == 0
    assert "noise schedule: not in the checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("", "so linear with 1000 timesteps unless --schedule and --timesteps are given"),
        ("--schedule cosine", "so timesteps 1000 (--timesteps if it was trained with another)"),
        ("--timesteps 50", "so schedule linear (--schedule if it was trained with another)"),
        ("--schedule cosine --timesteps 50", None),
    ],
)
def test_a_run_notes_only_what_it_assumes_of_the_schedule(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, note: str | None
) -> None:
    arguments = ["--model_path", str(without_metadata(checkpoint)), "--img_size", "8", "--out_dir", str(tmp_path / "o")]
    assert main([*arguments, "--dry_run", *flags.split()]) == 0
    shown = capsys.readouterr().out
    assert ("noise schedule: not in the checkpoint" in shown) == (note is not None)
    assert note is None or note in shown


def test_a_document_that_sets_what_its_sampler_does_not_use_gets_a_note(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"model": {"uri": str(checkpoint)}, "output": {"uri": str(tmp_path / "o")}, "sampler": {"eta": 0.5}}
    monkeypatch.setenv("DDPM_JOB", json.dumps(document))
    assert main(["--dry_run"]) == 0
    assert "sampler.eta 0.5 has no effect with the sampler ddpm" in capsys.readouterr().out


def test_another_checkpoint_than_the_pinned_one_is_rejected(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model_path", str(checkpoint), "--out_dir", str(tmp_path / "out"), "--dry_run", "--sha256"]
    assert main([*arguments, hashlib.sha256(checkpoint.read_bytes()).hexdigest()]) == 0
    assert main([*arguments, "0" * 64]) == 2
    assert f"not the pinned {'0' * 64}" in capsys.readouterr().err


@pytest.mark.parametrize("dry", [True, False])
def test_a_file_in_place_of_the_output_is_exit_code_2(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        arguments = ["--model_path", str(checkpoint), "--out_dir", str(out), "--ray_address", "ray://127.0.0.1:1"]
        assert main([*arguments, *(["--dry_run"] if dry else [])]) == 2
        assert f"{file} is a file" in capsys.readouterr().err


def test_counts_of_one_are_singular(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model_path", str(checkpoint), "--out_dir", str(tmp_path / "out"), "--dry_run", "--device", "cpu"]
    assert main([*arguments, "--n_samples", "1", "--batch_size", "1"]) == 0
    assert "1 shard of at most 1 sample\n" in capsys.readouterr().out


def test_too_many_steps_are_said_in_plain_words(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model_path", str(checkpoint), "--out_dir", str(tmp_path / "out"), "--steps", "101"]) == 2
    error = capsys.readouterr().err.splitlines()[0]
    assert error == "error: the sampler is not valid: 101 steps are more than the schedule's 100 timesteps"


def test_an_invalid_job_in_the_environment_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPM_JOB", "{}")
    assert main([]) == 2
    assert "DDPM_JOB" in capsys.readouterr().err
