"""The operator's process is killed repeatedly, at random moments of one sampling."""

from __future__ import annotations

import os
import random
import secrets
import time
from pathlib import Path

import pytest

from tests.cluster.kube import Namespace
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left

KILLS = 6
MAX_WAIT = 8.0
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SPEC = SMALL | {"samples": 64, "sampler": {"name": "ddpm", "steps": 200}}

pytestmark = [pytest.mark.alone, pytest.mark.long]


def test_random_kills_of_the_operator_change_nothing(
    namespace: Namespace, operator: Operator, worker_image: str, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"SEED={seed} repeats these moments")
    moments = random.Random(seed)
    sampling = Sampling.apply(namespace, "digits", SPEC)
    for _ in range(KILLS):
        # A random moment, so there is no condition to wait for.
        time.sleep(moments.uniform(0, MAX_WAIT))
        operator.kill()
    status = sampling.wait_until_complete(64)["status"]
    assert (status["attempt"], status.get("failedAttempts", 0), status["phase"]) == (1, 0, "Succeeded")
    assert_nothing_left(namespace)
    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="digits-output"
    )
    assert samples == local_samples(64, tmp_path, *SAMPLER)
    assert manifest == status["output"]["manifestSha256"]
