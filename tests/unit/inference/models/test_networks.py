"""The eager networks: their state dicts, their documented formulas, and valid image sizes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import ModelName, ModelSpec, TimeEmbedding
from ddpm_inference.models import build, expected_shapes

# Keys and shapes of the original's two networks for downs 8 16 32, time_emb_dim 4, in their order.
DOCUMENTED: dict[ModelName, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("documented_shapes.json").read_text()
)


def spec_of(
    name: ModelName = "Unet",
    downs: tuple[int, ...] = (8, 16, 32),
    *,
    img_size: int = 28,
    channels: int = 1,
    time_embedding: TimeEmbedding = "step",
    attention_norm: bool = True,
    time_emb_dim: int = 4,
) -> ModelSpec:
    return ModelSpec(
        name=name,
        downs=downs,
        time_emb_dim=time_emb_dim,
        img_size=img_size,
        channels=channels,
        time_embedding=time_embedding,
        attention_norm=attention_norm,
    )


def as_trained(spec: ModelSpec) -> nn.Module:
    """Builds a network in evaluation mode as after training: BatchNorm has statistics, and attention is sharp."""
    torch.manual_seed(3)
    network = build(spec).eval()
    for key, value in network.named_parameters():
        if "attention_int" in key and value.dim() == 2:
            value.data.mul_(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.bias.data, module.running_mean):
                assert value is not None
                value.copy_(0.5 * torch.randn_like(value))
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 2.0)
    return network


def images(spec: ModelSpec, count: int) -> Tensor:
    return torch.randn(count, *spec.image_shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", ["Unet", "SimpleUnet"])
def test_keys_and_shapes_are_documented(name: ModelName) -> None:
    shapes = expected_shapes(spec_of(name))
    assert [(key, list(shape)) for key, shape in shapes.items()] == list(DOCUMENTED[name].items())


@pytest.mark.parametrize("name", ["Unet", "SimpleUnet"])
def test_expected_shapes_are_those_of_the_network(name: ModelName) -> None:
    spec = spec_of(name, (6, 10, 14), channels=3, time_emb_dim=5)
    built = {key: tuple(value.shape) for key, value in build(spec).state_dict().items()}
    assert expected_shapes(spec) == built


def test_expected_shapes_allocate_no_weights() -> None:
    shapes = expected_shapes(spec_of(downs=(4096,) * 8, img_size=128))
    assert sum(math.prod(shape) for shape in shapes.values()) > 3e9


@pytest.mark.parametrize("name", ["Unet", "SimpleUnet"])
@pytest.mark.parametrize(
    ("downs", "img_size"), [((8,), 7), ((7, 9), 14), ((8, 16, 32), 28), ((4, 6, 8, 10), 16), ((8, 16, 32), 36)]
)
def test_eps_has_the_shape_of_the_image(name: ModelName, downs: tuple[int, ...], img_size: int) -> None:
    spec = spec_of(name, downs, img_size=img_size, channels=3)
    x = images(spec, 2)
    eps = build(spec)(x, torch.tensor([0, 999]))
    assert eps.shape == x.shape
    assert eps.isfinite().all()


@pytest.mark.parametrize(("name", "levels", "multiple"), [("Unet", 4, 8), ("SimpleUnet", 5, 8), ("Unet", 3, 4)])
def test_an_image_size_must_fit_the_levels(name: ModelName, levels: int, multiple: int) -> None:
    spec = spec_of(name, tuple(range(8, 8 + levels)), img_size=30)
    with pytest.raises(InvalidSpec, match=f"img_size 30 does not fit downs 8 9 .*multiple of {multiple}"):
        build(spec)
    with pytest.raises(InvalidSpec):
        expected_shapes(spec)


@pytest.mark.parametrize("attention_norm", [True, False])
@pytest.mark.parametrize("time_embedding", ["step", "row"])
def test_the_unet_computes_the_documented_formula(attention_norm: bool, time_embedding: TimeEmbedding) -> None:
    spec = spec_of(attention_norm=attention_norm, time_embedding=time_embedding)
    network, x, t = as_trained(spec), images(spec, 3), torch.tensor([0, 17, 999])
    with torch.inference_mode():
        eps = network(x, t)
    position = t if time_embedding == "step" else torch.zeros(3)
    expected = unet_formula(network.state_dict(), x, position, attention_norm=attention_norm)
    torch.testing.assert_close(eps.double(), expected, rtol=1e-5, atol=1e-5)


def test_attention_norm_makes_a_difference() -> None:
    x, t = images(spec_of(), 2), torch.tensor([5, 5])
    applied, left_out = (as_trained(spec_of(attention_norm=norm))(x, t) for norm in (True, False))
    assert (applied - left_out).abs().max() > 1e-3


def test_row_embedding_ignores_row_and_time() -> None:
    spec = spec_of(time_embedding="row")
    network, x = as_trained(spec), images(spec, 1).expand(4, -1, -1, -1)
    with torch.inference_mode():
        eps = network(x, torch.tensor([0, 10, 500, 999]))
        alone = network(x[:1], torch.tensor([700]))
    torch.testing.assert_close(eps, alone.expand_as(eps), rtol=0, atol=1e-5)


def test_row_embedding_is_the_original_constant() -> None:
    embedding = build(spec_of(time_embedding="row")).get_submodule("pos_emb.0")
    assert embedding(torch.tensor([123, 999])).tolist() == [[0, 1, 0, 1], [0, 1, 0, 1]]


def test_step_embedding_is_exact_at_late_timesteps() -> None:
    embedding = build(spec_of(time_emb_dim=5)).get_submodule("pos_emb.0")
    waves = [math.sin, math.cos, math.sin, math.cos, math.sin]
    expected = [wave(99_999 * 10_000 ** (-i / 5)) for i, wave in enumerate(waves)]
    assert embedding(torch.tensor([99_999])).tolist()[0] == pytest.approx(expected, abs=1e-6)


def test_every_row_has_its_own_timestep() -> None:
    spec = spec_of()
    network, x = as_trained(spec), images(spec, 3)
    t = torch.tensor([3, 400, 900])
    with torch.inference_mode():
        together = network(x, t)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
        other_time = network(x, t + 50)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (together - other_time).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_every_parameter_of_the_unet_is_trained() -> None:
    spec = spec_of()
    network = build(spec).train()
    network(images(spec, 4), torch.tensor([1, 300, 600, 900])).square().mean().backward()
    idle = [key for key, value in network.named_parameters() if value.grad is None]
    assert idle == []


def test_the_simple_unet_computes_the_documented_formula() -> None:
    spec = spec_of("SimpleUnet")
    network, x = as_trained(spec), images(spec, 2)
    with torch.inference_mode():
        eps = network(x, torch.tensor([1, 2]))
    torch.testing.assert_close(eps.double(), simple_unet_formula(network.state_dict(), x), rtol=1e-5, atol=1e-5)


def test_the_simple_unet_ignores_time() -> None:
    spec = spec_of("SimpleUnet")
    network, x = as_trained(spec), images(spec, 2)
    with torch.inference_mode():
        assert torch.equal(network(x, torch.tensor([0, 0])), network(x, torch.tensor([999, 500])))


class Weights:
    """A state dict in float64 below a prefix, and the layers of the formulas."""

    def __init__(self, state: dict[str, Tensor], prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.state[self.prefix + name].double()

    def below(self, name: str) -> Weights:
        return Weights(self.state, f"{self.prefix}{name}.")

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        bias = self[f"{name}.bias"] if f"{self.prefix}{name}.bias" in self.state else None
        return F.conv2d(x, self[f"{name}.weight"], bias, stride, padding)

    def conv_up(self, name: str, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self[f"{name}.weight"], self[f"{name}.bias"], stride=2, padding=1)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale = self[f"{name}.weight"] / (self[f"{name}.running_var"] + 1e-5).sqrt()
        shift = self[f"{name}.bias"] - self[f"{name}.running_mean"] * scale
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    def rms(self, name: str, x: Tensor) -> Tensor:
        return x / x.square().sum(1, keepdim=True).sqrt() * self[f"{name}.g"] * math.sqrt(x.shape[1])


def unet_formula(state: dict[str, Tensor], x: Tensor, position: Tensor, *, attention_norm: bool) -> Tensor:
    """Computes the documented formula of the Unet with three levels in float64, without our modules."""
    top = Weights(state)
    i = torch.arange(top["pos_emb.1.weight"].shape[1])
    phase = position.double()[:, None] / 10_000 ** (i.double() / len(i))
    t = top.linear("pos_emb.3", top.linear("pos_emb.1", torch.where(i % 2 == 0, phase.sin(), phase.cos())).relu())

    def res(name: str, x: Tensor) -> Tensor:
        w = top.below(name)
        h = w.conv("conv1", w.norm("bnorm1", x).relu()) + w.linear("lintemb", t.relu())[:, :, None, None]
        return x + w.conv("conv2", w.norm("bnorm2", h).relu())

    def level(name: str, x: Tensor) -> Tensor:
        w = top.below(name)
        h = w.conv("conv1", w.norm("bnorm1", x).relu()) + w.linear("lintemb", t).relu()[:, :, None, None]
        residual = w.conv("squish_conv", x) if name.startswith("up") else x
        return residual + w.conv("conv2", w.norm("bnorm2", h)).relu()

    def attention(x: Tensor) -> Tensor:
        w = top.below("attention_int")
        z = x + w.linear("lintemb", t).relu()[:, :, None, None]
        z = w.norm("bnorm", z) if attention_norm else z
        pixels = torch.stack([z[:, :, i, j] for i in range(z.shape[2]) for j in range(z.shape[3])], dim=1)
        weights, biases = w["attention.in_proj_weight"].chunk(3), w["attention.in_proj_bias"].chunk(3)
        q, k, v = (
            (w.linear(name, pixels) @ weight.T + bias).unflatten(2, (8, 16))
            for name, weight, bias in zip("qkv", weights, biases, strict=True)
        )
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(16)
        mixed = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).flatten(2)
        return x + w.linear("proj", w.linear("attention.out_proj", mixed)).transpose(1, 2).reshape(x.shape)

    x0 = top.conv("init_conv2", res("init_res", top.conv("init_conv", x.double())))
    h0 = level("downsampling.0", x0)
    h1 = level("downsampling.1", top.conv("downsampling.0.transform", h0, stride=2))
    bottom = top.conv("downsampling.1.transform", h1, stride=2)
    y = res("resint2", top.norm("bnorm", attention(res("resint1", bottom))).relu()) + bottom
    y = top.conv_up("upsampling.0.transform", level("upsampling.0", torch.cat([y, bottom], 1)))
    y = top.conv_up("upsampling.1.transform", level("upsampling.1", torch.cat([y, h1], 1)))
    return top.conv("out_conv", top.norm("bnorm_out", y + x0).relu(), padding=0)


def simple_unet_formula(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Computes the documented formula of the SimpleUnet with three widths in float64, without our modules."""
    top = Weights(state)

    def res(name: str, x: Tensor) -> Tensor:
        w, h = top.below(name), x
        for block in ("block1", "block2"):
            h = F.silu(w.rms(f"{block}.norm", w.conv(f"{block}.proj", h)))
        has_conv = f"{name}.res_conv.weight" in state
        return h + (w.conv("res_conv", x, padding=0) if has_conv else x)

    def attention(name: str, x: Tensor) -> Tensor:
        w = top.below(name)
        b, _, height, width = x.shape
        qkv = w.conv("to_qkv", w.rms("norm", x), padding=0)
        q, k, v = (part.reshape(b, 4, 32, height * width) for part in qkv.chunk(3, dim=1))
        memory = w["mem_kv"][:, None].repeat(1, b, 1, 1, 1)
        k, v = torch.cat([memory[0], k], -1).softmax(-1), torch.cat([memory[1], v], -1)
        context = torch.einsum("bhdn,bhen->bhde", k, v)
        out = torch.einsum("bhde,bhdn->bhen", context, q.softmax(2) / math.sqrt(32))
        out = w.conv("to_out.0", out.reshape(b, 128, height, width), padding=0)
        return x + w.rms("to_out.1", out)

    x0 = top.conv("init_conv", x.double(), padding=3)
    a0 = res("downsampling.0.0", x0)
    b0 = attention("downsampling.0.2", res("downsampling.0.1", a0))
    a1 = res("downsampling.1.0", top.conv("downsampling.0.3", b0, stride=2))
    b1 = attention("downsampling.1.2", res("downsampling.1.1", a1))
    y = res("resint2", attention("attention_int", res("resint1", top.conv("downsampling.1.3", b1))))
    y = res("upsampling.0.1", torch.cat([res("upsampling.0.0", torch.cat([y, b1], 1)), a1], 1))
    y = top.conv_up("upsampling.0.3", attention("upsampling.0.2", y))
    y = res("upsampling.1.1", torch.cat([res("upsampling.1.0", torch.cat([y, b0], 1)), a0], 1))
    y = top.conv("upsampling.1.3", attention("upsampling.1.2", y))
    return top.conv("out_conv", res("end_res", torch.cat([y, x0], 1)), padding=0)
