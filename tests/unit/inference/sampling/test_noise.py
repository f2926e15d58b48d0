"""Noise: published known answers, an independent implementation, statistics, and independence of batching."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.sampling.noise import NoiseSource, philox4x32_10, round_keys, uniform

WORD = st.integers(0, 2**32 - 1)
DIGIT = (1, 28, 28)


def words_of(counter: tuple[int, ...], seed: int) -> list[int]:
    return philox4x32_10(torch.tensor(counter).view(4, 1), round_keys(seed)).flatten().tolist()


def philox_in_plain_python(counter: tuple[int, ...], seed: int) -> list[int]:
    """Salmon et al. 2011, section 3.3, in arbitrary-precision integers: the key is bumped before every round but
    the first, as the reference implementation does."""
    r0, l0, r1, l1 = counter
    k0, k1 = seed % 2**32, seed // 2**32
    for round_index in range(10):
        if round_index:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        high0, low0 = divmod(0xD2511F53 * r0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * r1, 2**32)
        r0, l0, r1, l1 = high1 ^ k0 ^ l0, low1, high0 ^ k1 ^ l1, low0
    return [r0, l0, r1, l1]


def normals_in_plain_python(seed: int, sample: int, step: int, pixels: int) -> list[float]:
    """Computes what `NoiseSource` documents, in float64."""
    values = []
    for block in range(-(-pixels // 4)):
        words = philox_in_plain_python((block, step, sample % 2**32, sample // 2**32), seed)
        for a, b in (words[:2], words[2:]):
            u, v = ((a >> 9) + 0.5) / 2**23, ((b >> 9) + 0.5) / 2**23
            r = math.sqrt(-2 * math.log(u))
            values += [r * math.cos(2 * math.pi * v), r * math.sin(2 * math.pi * v)]
    return values[:pixels]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123, tests/kat_vectors, the three lines "philox4x32 10"
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_meets_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    assert words_of(counter, key[0] | key[1] << 32) == list(answer)


@settings(deadline=None)
@given(st.tuples(WORD, WORD, WORD, WORD), st.integers(0, 2**64 - 1))
def test_philox_equals_an_independent_implementation(counter: tuple[int, ...], seed: int) -> None:
    assert words_of(counter, seed) == philox_in_plain_python(counter, seed)


def test_the_counter_is_unchanged() -> None:
    counter = torch.arange(12).view(4, 3)
    philox4x32_10(counter, round_keys(1))
    assert torch.equal(counter, torch.arange(12).view(4, 3))


def test_uniform_values_are_strictly_between_0_and_1() -> None:
    u = uniform(torch.tensor([0, 1, 2**31, 2**32 - 2, 2**32 - 1]))
    assert u.dtype == torch.float32
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    assert float(u[0] + u[-1]) == 1.0


@pytest.mark.parametrize(
    ("seed", "sample", "step"), [(0, 0, 0), (2**63 - 1, 2**32 + 5, 999), (0xDEADBEEF_00000001, 41, 2**32 - 1)]
)
def test_values_are_the_documented_function(seed: int, sample: int, step: int) -> None:
    noise = NoiseSource(seed, torch.tensor([sample]), (3, 5, 5))(step)
    expected = torch.tensor(normals_in_plain_python(seed, sample, step, 75)).view(1, 3, 5, 5)
    # float32: the angle, at most 2 pi, is off by at most 4e-7, and the radius is at most 6.
    torch.testing.assert_close(noise, expected, rtol=1e-6, atol=3e-6, check_dtype=False)


@pytest.mark.parametrize(
    ("seed", "sample", "values"),
    [
        (
            0,
            0,
            [
                [0.260584, 0.100747, 0.097944, -1.045415],
                [-1.182999, -0.923225, 0.901254, -0.411814],
                [1.136368, -0.675883, 1.240592, 0.224251],
            ],
        ),
        (
            1,
            7,
            [
                [0.621715, 2.150962, 1.271452, 2.085316],
                [-0.476862, -0.95871, -0.815348, -0.474484],
                [-0.33074, -1.998443, 0.928775, 1.162589],
            ],
        ),
        (
            2**63 - 1,
            10**12,
            [
                [-1.119247, -0.714845, 0.01452, -0.956388],
                [0.273584, 1.02688, -0.9175, 0.594489],
                [-0.541932, 1.133406, -0.827843, -0.682953],
            ],
        ),
    ],
)
def test_golden_values_of_this_noise_version(seed: int, sample: int, values: list[list[float]]) -> None:
    source = NoiseSource(seed, torch.tensor([sample]), DIGIT)
    seen = torch.stack([z.flatten()[:4] for z in (source.initial(), source(999), source(1))])
    torch.testing.assert_close(seen, torch.tensor(values), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [DIGIT, (1, 5, 5), (3, 7, 7), (1, 1, 1)])
def test_bits_do_not_depend_on_batch_row_or_threads(shape: tuple[int, int, int]) -> None:
    alone = {i: NoiseSource(7, torch.tensor([i]), shape)(31) for i in (0, 3, 2**40)}
    for batch in ([0, 3, 2**40], [3, 2**40, 1, 1, 5, 0, 9], [*range(100, 164), 2**40, *range(36), 0, 3]):
        for count in (1, 2):
            torch.set_num_threads(count)
            together = NoiseSource(7, torch.tensor(batch), shape)(31)
            for i, expected in alone.items():
                assert torch.equal(together[batch.index(i)], expected[0])


def test_bits_do_not_depend_on_earlier_calls() -> None:
    fresh = NoiseSource(3, torch.arange(4), DIGIT)(10)
    used = NoiseSource(3, torch.arange(4), DIGIT)
    used.initial()
    used(999)
    assert torch.equal(used(10), fresh)
    assert torch.equal(used(10), fresh)


def test_every_seed_sample_and_step_has_distinct_noise() -> None:
    seen: set[bytes] = set()
    seeds = (0, 1, 2**32, 2**32 + 1, 2**63 - 1)
    samples = torch.tensor([0, 1, 2, 2**32, 2**32 + 1])
    for seed in seeds:
        source = NoiseSource(seed, samples, (1, 4, 4))
        for noise in (source.initial(), source(0), source(1), source(2**31)):
            seen |= {row.numpy().tobytes() for row in noise}
    assert len(seen) == len(seeds) * len(samples) * 4


def test_20000_samples_have_distinct_initial_noise() -> None:
    starts = NoiseSource(0, torch.arange(20_000), (1, 2, 2)).initial().view(20_000, 4)
    assert len(torch.unique(starts, dim=0)) == 20_000


@pytest.fixture(scope="module")
def noise() -> Tensor:
    """(samples, steps, pixels)"""
    source = NoiseSource(2026, torch.arange(64), DIGIT)
    return torch.stack([source(step).view(64, -1) for step in range(8)], dim=1).double()


class TestDistribution:
    """Deterministic, because seeds are fixed. Bounds are 4 standard errors for the number of values."""

    def test_moments_are_standard_normal(self, noise: Tensor) -> None:
        n = noise.numel()
        assert abs(float(noise.mean())) < 4 * math.sqrt(1 / n)
        assert abs(float(noise.var()) - 1) < 4 * math.sqrt(2 / n)
        assert abs(float((noise**3).mean())) < 4 * math.sqrt(15 / n)
        assert abs(float((noise**4).mean()) - 3) < 4 * math.sqrt(96 / n)

    def test_the_distribution_is_normal(self, noise: Tensor) -> None:
        import scipy.stats

        assert scipy.stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01

    @pytest.mark.parametrize("word", range(4))
    def test_each_of_a_block_s_four_values_is_normal(self, noise: Tensor, word: int) -> None:
        import scipy.stats

        assert scipy.stats.kstest(noise[..., word::4].flatten().numpy(), "norm").pvalue > 0.01

    def test_tails_have_the_expected_size(self, noise: Tensor) -> None:
        import scipy.stats

        n, beyond = noise.numel(), 2 * scipy.stats.norm.sf(4)
        assert abs(int((noise.abs() > 4).sum()) - n * beyond) < 4 * math.sqrt(n * beyond)

    @pytest.mark.parametrize(
        ("between", "axis", "lag"),
        [("samples", 0, 1), ("steps", 1, 1), ("pixels", 2, 1), ("pixels of a block", 2, 2), ("blocks", 2, 4)],
    )
    @pytest.mark.parametrize("power", [1, 2])
    def test_neighbours_are_uncorrelated(self, noise: Tensor, between: str, axis: int, lag: int, power: int) -> None:
        values = (noise**power).numpy()
        length = values.shape[axis]
        first, second = (np.take(values, range(i, length - lag + i), axis).ravel() for i in (0, lag))
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(first.size), between

    def test_neighbouring_seeds_are_uncorrelated(self) -> None:
        noises = [NoiseSource(seed, torch.arange(64), DIGIT).initial().flatten().numpy() for seed in (0, 1, 2**32)]
        for first, second in itertools.combinations(noises, 2):
            assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(first.size)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InvalidSpec, match="seed"):
        NoiseSource(seed, torch.tensor([0]), DIGIT)


def test_a_negative_sample_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="-3"):
        NoiseSource(0, torch.tensor([0, -3]), DIGIT)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="step -1"):
        NoiseSource(0, torch.tensor([0]), DIGIT)(-1)
