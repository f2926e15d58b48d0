"""``convert`` between safetensors and the folder of a pipeline, and what ``inspect`` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddpm_inference.checkpoint import convert, load_from
from ddpm_inference.cli import main
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.inspection import inspect
from ddpm_inference.job import ModelRequest
from tests.support.pipelines import SCHEDULER, encoded, nested, write


@pytest.mark.parametrize(
    "scheduler",
    [
        SCHEDULER,
        {**SCHEDULER, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False},
        {**SCHEDULER, "trained_betas": [0.01] * 20, "variance_type": "fixed_large"},
        {**SCHEDULER, "beta_schedule": "sigmoid", "thresholding": True, "timestep_spacing": "trailing"},
        {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "steps_offset": 1, "num_train_timesteps": 50},
        {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1, "euler_at_final": True},
        {"_class_name": "UniPCMultistepScheduler", "disable_corrector": [0, 1]},
        {"_class_name": "HeunDiscreteScheduler"},
    ],
)
def test_a_pipeline_survives_both_ways(tmp_path: Path, scheduler: dict[str, object]) -> None:
    files = {**nested(), "scheduler/scheduler_config.json": encoded(scheduler)}
    source = load_from(ModelRequest(uri=str(write(tmp_path / "source", files))))
    convert(tmp_path / "source", tmp_path / "net.safetensors", ModelRequest(uri="x"))
    convert(tmp_path / "net.safetensors", tmp_path / "folder", ModelRequest(uri="x"))
    for path in (tmp_path / "net.safetensors", tmp_path / "folder"):
        found = load_from(ModelRequest(uri=str(path)))
        assert found.spec == source.spec
        assert found.diffusion is not None
        assert source.diffusion is not None
        assert found.diffusion.model_dump(exclude={"notes"}) == source.diffusion.model_dump(exclude={"notes"})
        assert all(np.array_equal(value, found.weights[key]) for key, value in source.weights.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "net.safetensors", "source"]


def test_a_network_of_the_guide_has_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="diffusers has no class for a Unet"):
        convert("builtin://mnist", tmp_path / "folder", ModelRequest(uri="x"), as_folder=True)
    assert not list(tmp_path.iterdir())


def test_other_things_are_not_overwritten_by_a_pipeline(tmp_path: Path) -> None:
    source = write(tmp_path / "source", nested())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(InvalidSpec, match="holds something else than a pipeline"):
        convert(source, tmp_path / "home", ModelRequest(uri="x"), overwrite=True)
    with pytest.raises(InvalidSpec, match="would be a pickle"):
        convert(source, tmp_path / "net.pt", ModelRequest(uri="x"))


def test_inspect_says_what_a_run_needs_to_know(tmp_path: Path) -> None:
    found = inspect(ModelRequest(uri=str(write(tmp_path, nested()))))
    document = found.document
    assert found.refusal is None
    assert (document["family"], document["imageShape"], document["classes"]) == ("UNet2DModel", [1, 8, 8], None)
    assert document["sampler"] == "ddpm"
    assert document["parameters"] == sum(
        value.size for value in load_from(ModelRequest(uri=str(tmp_path))).weights.values()
    )
    assert dict(found.lines)["images"] == "8 x 8, 1 channel"


def test_inspect_prints_a_refusal_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"scheduler_config.json": encoded(SCHEDULER)})
    assert main(["inspect", str(tmp_path), "--json"]) == 2
    assert "its upload is unfinished" in json.loads(capsys.readouterr().out)["refused"]["message"]
    assert main(["inspect", str(tmp_path)]) == 2
    assert "refused" in capsys.readouterr().out
