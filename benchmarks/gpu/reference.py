"""Reference values of the noise, independent of torch and Triton, and the comparison of our noise with them."""

from __future__ import annotations

import math

import torch

from ddpm_inference.sampling.noise import NoiseSource, philox4x32_10, round_keys

# Random123, tests/kat_vectors, the three lines "philox4x32 10": counter, seed, words.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, 0xFFFFFFFF_FFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0_A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
TOLERANCE = 3e-6


def philox(counter: tuple[int, ...], seed: int) -> list[int]:
    """Computes Philox4x32-10 with Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed % 2**32, seed // 2**32
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ k0 ^ c1, low1, high0 ^ k1 ^ c3, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def normals(seed: int, sample: int, step: int, pixels: int) -> list[float]:
    """Computes the noise that `NoiseSource` documents, in float64."""
    values: list[float] = []
    for block in range(-(-pixels // 4)):
        words = philox((block, step, sample % 2**32, sample // 2**32), seed)
        for first, second in (words[:2], words[2:]):
            u, v = ((first >> 9) + 0.5) / 2**23, ((second >> 9) + 0.5) / 2**23
            radius, angle = math.sqrt(-2 * math.log(u)), 2 * math.pi * v
            values += [radius * math.cos(angle), radius * math.sin(angle)]
    return values[:pixels]


def check_noise(device: str) -> dict[str, bool]:
    """Returns which comparisons of `ddpm_inference`'s noise with the reference hold."""
    words_equal = all(
        philox4x32_10(torch.tensor(counter, device=device).view(4, 1), round_keys(seed, device)).flatten().tolist()
        == list(words)
        == philox(counter, seed)
        for counter, seed, words in KNOWN_ANSWERS
    )
    differences = []
    for seed, sample, step in ((0, 0, 0), (2**63 - 1, 2**32 + 5, 999), (0xDEADBEEF_00000001, 41, 2**32 - 1)):
        noise = NoiseSource(seed, torch.tensor([sample]), (3, 5, 5), device)(step).flatten().cpu().double()
        differences.append(float((noise - torch.tensor(normals(seed, sample, step, 75)).double()).abs().max()))
    return {
        "noise words equal the known answers": words_equal,
        f"noise is within {TOLERANCE} of the reference": max(differences) < TOLERANCE,
    }
