"""Every value of every configuration of a pipeline, replaced by one that no author would write: no crash."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ddpm_inference.checkpoint import load_from
from ddpm_inference.errors import DdpmError
from ddpm_inference.inspection import inspect
from ddpm_inference.job import ModelRequest
from tests.support.pipelines import CONFIG, INDEX, SCHEDULER, encoded, nested, write

HOSTILE: list[Any] = [
    *(None, True, -1, 0, 3, 1.5, 1e308, 10**30, -(10**30), math.nan, math.inf, "", "x", "\x1b[2J", "9" * 400),
    *([], [0], [None], [[]], [-1, -1], ["DownBlock2D"] * 300, [10**30, 10**30], {}, {"a": {}}, ["__main__", 7]),
]
DOCUMENTS = {
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": {**SCHEDULER, "trained_betas": None, "thresholding": False, "steps_offset": 0},
    "unet/config.json": {**CONFIG, "time_embedding_dim": None, "num_train_timesteps": None, "dropout": 0.0},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_value_is_refused_or_has_no_effect(tmp_path: Path, name: str) -> None:
    write(tmp_path, nested())
    request = ModelRequest(uri=str(tmp_path))
    for key in [*DOCUMENTS[name], "unknown", ""]:
        for value in HOSTILE:
            write(tmp_path, {name: encoded({**DOCUMENTS[name], key: value})})
            try:
                checkpoint = load_from(request)
            except DdpmError as error:
                refused = error.message
            else:
                refused = ""
                assert checkpoint.spec.image_shape == (1, 8, 8) or key == "sample_size"
            assert "\x1b" not in refused, (key, value)
            assert len(refused) < 2000, (key, value)


def test_a_hostile_scheduler_does_not_break_inspect(tmp_path: Path) -> None:
    write(tmp_path, nested())
    name = "scheduler/scheduler_config.json"
    for key in DOCUMENTS[name]:
        for value in HOSTILE:
            write(tmp_path, {name: encoded({**DOCUMENTS[name], key: value})})
            json.dumps(inspect(ModelRequest(uri=str(tmp_path))).document)
