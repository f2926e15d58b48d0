"""Fast execution: equal to the eager network, with bits that do not depend on the position in a batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import ModelSpec
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import EpsModel

DIGITS = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")
SIMPLE = ModelSpec(name="SimpleUnet", downs=(4, 8, 12), time_emb_dim=4, img_size=8, time_embedding="step")
SPECS = [
    pytest.param(DIGITS, id="digits"),
    pytest.param(DIGITS.model_copy(update={"time_embedding": "row"}), id="row"),
    pytest.param(DIGITS.model_copy(update={"attention_norm": False}), id="attention-without-norm"),
    pytest.param(DIGITS.model_copy(update={"downs": (6, 10, 14), "time_emb_dim": 7}), id="odd-widths"),
    pytest.param(DIGITS.model_copy(update={"downs": (5, 7, 9), "img_size": 20}), id="odder-widths"),
    pytest.param(DIGITS.model_copy(update={"downs": (4, 8, 16, 32), "img_size": 32}), id="four-levels"),
    pytest.param(DIGITS.model_copy(update={"downs": (8, 16), "img_size": 10, "channels": 3}), id="colour"),
    pytest.param(DIGITS.model_copy(update={"downs": (8,), "img_size": 7}), id="one-level"),
    pytest.param(SIMPLE, id="simple"),
    pytest.param(SIMPLE.model_copy(update={"channels": 3, "img_size": 10}), id="simple-colour"),
]
TIMESTEPS = (0, 1, 2, 500, 999)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Uses one thread, because threads would only wait for each other; one test sets two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(spec: ModelSpec) -> nn.Module:
    """Builds a network with non-trivial norms: statistics, scales of both signs, and shifts far from their defaults. In
    training mode, as `build` returns it."""
    torch.manual_seed(0)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.3, 3)
    return network


def eager(network: nn.Module, x: Tensor, t: int) -> Tensor:
    network.eval()
    with torch.inference_mode():
        result: Tensor = network(x, torch.full((len(x),), t))
    return result


def images(spec: ModelSpec, batch: int = 3) -> Tensor:
    return NoiseSource(1, torch.arange(batch), spec.image_shape).initial()


@pytest.mark.parametrize("spec", SPECS)
def test_folded_equals_the_eager_network(spec: ModelSpec) -> None:
    network, x = trained(spec), images(spec)
    eps = predictor(network, spec, TIMESTEPS)
    for t in TIMESTEPS:
        ours, theirs = eps(x, t), eager(network, x, t)
        assert ours.shape == theirs.shape
        assert ours.dtype == torch.float32
        assert ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_only_a_step_network_depends_on_time() -> None:
    x = images(DIGITS)
    step = predictor(trained(DIGITS), DIGITS, TIMESTEPS)
    assert float((step(x, 1) - step(x, 999)).abs().max()) > 1e-3
    row_spec = DIGITS.model_copy(update={"time_embedding": "row"})
    row = predictor(trained(row_spec), row_spec, TIMESTEPS)
    assert torch.equal(row(x, 1), row(x, 999))


def test_the_source_network_is_unchanged() -> None:
    for spec in (DIGITS, SIMPLE):
        network = trained(spec)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        predictor(network, spec, TIMESTEPS, precision="bf16")(images(spec), 1)
        assert network.training
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert all(value.dtype == before[key].dtype for key, value in network.state_dict().items())


def test_x_is_unchanged() -> None:
    for spec in (DIGITS, SIMPLE):
        x = images(spec)
        before = x.clone()
        predictor(trained(spec), spec, TIMESTEPS)(x, 1)
        assert torch.equal(x, before)


def test_an_unprepared_timestep_is_an_error() -> None:
    eps = predictor(trained(DIGITS), DIGITS, [1, 2])
    with pytest.raises(KeyError, match="3"):
        eps(images(DIGITS), 3)


@pytest.mark.parametrize("spec", [pytest.param(DIGITS, id="digits"), pytest.param(SIMPLE, id="simple")])
def test_bf16_is_close_and_returns_float32(spec: ModelSpec) -> None:
    network, x = trained(spec), images(spec)
    ours, theirs = predictor(network, spec, TIMESTEPS, precision="bf16")(x, 500), eager(network, x, 500)
    assert ours.dtype == torch.float32
    # bf16 has 8 bits, and about 25 layers round: an error of a few per cent.
    error = float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())
    assert 1e-4 < error < 0.05


@pytest.mark.slow
def test_compiled_equals_folded() -> None:
    spec = ModelSpec(name="Unet", downs=(4, 6), time_emb_dim=3, img_size=8, time_embedding="step")
    network, x = trained(spec), images(spec)
    compiled = predictor(network, spec, TIMESTEPS, execution="compiled")
    folded = predictor(network, spec, TIMESTEPS)
    for t in TIMESTEPS:
        torch.testing.assert_close(compiled(x, t), folded(x, t), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_compiler_is_imported_only_when_needed() -> None:
    program = """if True:
        import sys
        import ddpm_inference.shard_sampler
        sys.exit(any(name.startswith(("torch._dynamo", "torch._inductor")) for name in sys.modules))
    """
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, str(tmp_path / "no-such-compiler")))
    spec = ModelSpec(name="Unet", downs=(3,), time_emb_dim=3, img_size=5, time_embedding="step")
    eps = predictor(trained(spec), spec, TIMESTEPS, execution="compiled")
    with pytest.raises(InvalidSpec, match="compiled on this machine") as refused:
        eps(images(spec), 1)
    assert "g++" in refused.value.hint


class TestBits:
    """At one batch shape the bits of a row depend on that row alone."""

    BATCH = 16

    @staticmethod
    def chain(eps: EpsModel, x: Tensor, steps: int) -> Tensor:
        """Iterates with |x| near 1, so that a difference of one bit grows instead of fading."""
        for i in range(steps):
            x = 1.01 * x - 0.2 * eps(x, TIMESTEPS[i % len(TIMESTEPS)])
            x = x / x.square().mean((1, 2, 3), keepdim=True).sqrt()
        return x

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("spec", "steps"),
        [
            pytest.param(DIGITS, 60, id="digits"),
            pytest.param(DIGITS.model_copy(update={"downs": (5, 7, 9), "img_size": 20}), 40, id="odd-widths"),
            pytest.param(DIGITS.model_copy(update={"channels": 3, "img_size": 12}), 40, id="colour"),
            pytest.param(SIMPLE, 40, id="simple"),
        ],
    )
    def test_bits_do_not_depend_on_row_or_neighbours(self, spec: ModelSpec, steps: int) -> None:
        eps = predictor(trained(spec), spec, TIMESTEPS)
        ours = images(spec, 1)
        alike = self.chain(eps, ours.repeat(self.BATCH, 1, 1, 1), steps)
        assert torch.equal(alike, alike[:1].expand_as(alike))

        hostile = 1e3 * images(spec, self.BATCH)
        hostile[3], hostile[4], hostile[5] = 0.0, torch.inf, torch.nan
        hostile[[0, 7, self.BATCH - 1]] = ours
        mixed = self.chain(eps, hostile, steps)
        for row in (0, 7, self.BATCH - 1):
            assert torch.equal(mixed[row], alike[0])

    @pytest.mark.slow
    @pytest.mark.parametrize("spec", [pytest.param(DIGITS, id="digits"), pytest.param(SIMPLE, id="simple")])
    def test_bits_do_not_depend_on_threads(self, spec: ModelSpec) -> None:
        eps, x = predictor(trained(spec), spec, TIMESTEPS), images(spec, self.BATCH)
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(self.chain(eps, x, 10))
        assert torch.equal(*results)
