"""Families of networks: which are installed, and that packages beside this one can add theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest
import torch

from ddpm_inference.checkpoint import load
from ddpm_inference.checkpoint.safetensors_file import as_array, encode
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import Identity, ModelName, ModelRequest, SamplerRequest, Shard, resolve_sampler
from ddpm_inference.models import families
from ddpm_inference.models.families import family_named, family_of
from ddpm_inference.network_spec import ExternalSpec
from ddpm_inference.plan import batch_size_for
from ddpm_inference.shard_sampler import ShardSampler

EXAMPLE = Path(__file__).parents[4] / "examples" / "network-family"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package, as if it were installed."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    entry = EntryPoint("SmallNetwork", "ddpm_small_network.family:FAMILY", families.GROUP)
    monkeypatch.setattr(families, "entry_points", lambda group: [entry] if group == families.GROUP else [])
    families.other_families.cache_clear()
    yield
    families.other_families.cache_clear()


def small_checkpoint() -> bytes:
    sys.path.insert(0, str(EXAMPLE))
    from ddpm_small_network.network import SmallNetwork

    sys.path.remove(str(EXAMPLE))
    torch.manual_seed(0)
    return encode({key: as_array(value) for key, value in SmallNetwork(3, 6).state_dict().items()}, None)


def test_the_networks_of_the_guide_and_diffusers_are_families() -> None:
    assert set(families.builtin_families()) == {*get_args(ModelName), "UNet2DModel"}


@pytest.mark.slow
def test_a_package_adds_a_network_that_draws_samples(installed: None) -> None:
    checkpoint = load(small_checkpoint(), ModelRequest(uri="x", img_size=8))
    assert checkpoint.spec == ExternalSpec(name="SmallNetwork", channels=3, size=(8, 8), options={"width": 6})
    identity = Identity(
        model_sha256=checkpoint.sha256,
        model=checkpoint.spec,
        sampler=resolve_sampler(SamplerRequest(name="ddim", steps=3), None),
        seed=1,
        precision="fp32",
        batch_size=min(4, batch_size_for(checkpoint.spec, "cpu")),
        execution="folded",
        device="cpu",
        torch=torch.__version__,
    )
    parsed = Identity.parse(identity.model_dump_json(), "job.json")
    assert parsed == identity
    samples = ShardSampler(checkpoint, parsed, threads=1).sample(Shard(first=0, last=1), lambda done, steps: None)
    assert samples.shape == (2, 3, 8, 8)
    assert samples.std() > 0


@pytest.mark.slow
def test_without_the_package_its_checkpoint_is_refused() -> None:
    with pytest.raises(ModelRejected, match="belong to neither a Unet nor a SimpleUnet"):
        load(small_checkpoint(), ModelRequest(uri="x"))
    with pytest.raises(InvalidSpec, match="no network 'SmallNetwork': installed are Unet, SimpleUnet, UNet2DModel"):
        family_of(ExternalSpec(name="SmallNetwork", channels=3, size=(8, 8)))


def test_a_package_cannot_replace_a_network_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("Unet", "os:path", families.GROUP)
    monkeypatch.setattr(families, "entry_points", lambda group: [entry])
    families.other_families.cache_clear()
    try:
        assert families.other_families() == {}
        assert family_named("Unet").name == "Unet"
    finally:
        families.other_families.cache_clear()


def test_a_package_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("Broken", "no_such_module:FAMILY", families.GROUP)
    monkeypatch.setattr(families, "entry_points", lambda group: [entry])
    families.other_families.cache_clear()
    try:
        with pytest.raises(InvalidSpec, match="the network Broken of the package"):
            family_named("Broken")
    finally:
        families.other_families.cache_clear()


@pytest.mark.slow
def test_reading_a_configuration_imports_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys; from ddpm_inference.models.families import builtin_families; builtin_families();"
        "from ddpm_inference.sampling.scheduler_config import read_scheduler; read_scheduler(None, None);"
        "print([name for name in ('torch', 'diffusers', 'huggingface_hub') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
