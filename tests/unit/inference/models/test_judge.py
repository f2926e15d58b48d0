"""The judge's data, decoys and metrics. Its accuracy is measured by the command in models/README.md."""

from __future__ import annotations

from pathlib import Path

import decoys
import judge
import numpy as np
import pytest
import torch
from digits import Digits
from torch import Tensor


@pytest.fixture(scope="module")
def forty_digits(data: tuple[Digits, Digits]) -> Digits:
    """Forty real digits of all classes."""
    return Digits(data[1].images[::12][:40], data[1].labels[::12][:40])


def made(kind: str, forty_digits: Digits, seed: int = 0) -> Tensor:
    return decoys.MAKERS[kind](forty_digits, torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_fifty_digits_of_each_class_are_held_out(data: tuple[Digits, Digits]) -> None:
    training, held_out = data
    assert training.labels.bincount().tolist() == [450] * 10
    assert held_out.labels.bincount().tolist() == [50] * 10
    assert training.images.shape == (4500, 1, 28, 28)
    assert (training.images.min(), training.images.max()) == (0, 1)


@pytest.mark.slow
def test_no_held_out_digit_is_in_the_training_set(data: tuple[Digits, Digits]) -> None:
    training, held_out = ({image.numpy().tobytes() for image in part.images} for part in data)
    assert not training & held_out


@pytest.mark.parametrize("kind", decoys.MAKERS)
def test_decoys_are_deterministic_images(kind: str, forty_digits: Digits) -> None:
    images = made(kind, forty_digits)
    assert images.shape == forty_digits.images.shape
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, made(kind, forty_digits))
    if kind != "blank":
        assert not torch.equal(images, made(kind, forty_digits, seed=1))


def test_blanks_have_almost_no_contrast(forty_digits: Digits) -> None:
    assert made("blank", forty_digits).flatten(1).std(1).max() < 0.06


def test_shuffled_digits_keep_their_pixel_values(forty_digits: Digits) -> None:
    images = made("shuffled", forty_digits)
    torch.testing.assert_close(images.flatten(1).sort(1).values, forty_digits.images.flatten(1).sort(1).values)
    assert (images != forty_digits.images).flatten(1).any(1).all()


def test_halves_come_from_different_classes(forty_digits: Digits) -> None:
    images, first = made("halves", forty_digits), forty_digits.images
    for i in range(0, len(images), 2):
        (others,) = (forty_digits.images[:, :, 14:] == images[i, :, 14:]).flatten(1).all(1).nonzero(as_tuple=True)
        assert torch.equal(images[i, :, :14], first[i, :, :14])
        assert len(others)
        assert (forty_digits.labels[others] != forty_digits.labels[i]).all()
    for i in range(1, len(images), 2):
        assert torch.equal(images[i, :, :, :14], first[i, :, :, :14])


def test_blends_contain_both_digits(forty_digits: Digits) -> None:
    drawn_over = made("blends", forty_digits)[1::2]
    assert (drawn_over >= forty_digits.images[1::2]).all()
    assert (drawn_over > forty_digits.images[1::2] + 0.5).flatten(1).any(1).all()


def test_decoys_need_two_classes(forty_digits: Digits) -> None:
    alone = Digits(forty_digits.images, torch.zeros_like(forty_digits.labels))
    with pytest.raises(ValueError, match="one class"):
        made("halves", alone)


def test_kid_grows_with_distance() -> None:
    features = torch.randn(1200, 16, generator=torch.Generator().manual_seed(0))
    same = judge.kid(features[:600], features[600:])
    near, far = (judge.kid(features[:600] + shift, features[600:]) for shift in (0.2, 0.5))
    assert abs(same) < 0.02
    assert 0.03 < near < far


def test_kid_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    few = [
        judge.kid(torch.randn(20, 4, generator=generator), torch.randn(20, 4, generator=generator)) for _ in range(500)
    ]
    assert abs(sum(few) / len(few)) < 4 * torch.tensor(few).std() / len(few) ** 0.5


def test_nearest_finds_a_memorised_image(forty_digits: Digits) -> None:
    assert judge.nearest(forty_digits.images[:5], forty_digits.images) == pytest.approx(0, abs=1e-2)
    assert judge.nearest(forty_digits.images[:1], forty_digits.images[1:]) > 1


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((2, 1, 28, 28)), "float64"),
        (np.zeros((2, 28, 28), np.float32), r"\(2, 28, 28\)"),
        (np.full((2, 1, 28, 28), np.nan, np.float32), "outside"),
        (np.full((2, 1, 28, 28), -1, np.float32), "outside"),
    ],
)
def test_a_file_without_samples_is_refused(tmp_path: Path, array: np.ndarray, what: str) -> None:
    np.save(tmp_path / "samples.npy", array)
    with pytest.raises(ValueError, match=what):
        judge.read(tmp_path / "samples.npy")
