"""The judge's data, its decoys and its measures; that it judges well is for the model card's command to say."""

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
def some(data: tuple[Digits, Digits]) -> Digits:
    """Forty real digits of all classes."""
    return Digits(data[1].images[::12][:40], data[1].labels[::12][:40])


def made(kind: str, some: Digits, seed: int = 0) -> Tensor:
    return decoys.MAKERS[kind](some, torch.Generator().manual_seed(seed))


def test_five_hundred_digits_are_held_out_fifty_of_each_class(data: tuple[Digits, Digits]) -> None:
    training, held_out = data
    assert training.labels.bincount().tolist() == [450] * 10
    assert held_out.labels.bincount().tolist() == [50] * 10
    assert training.images.shape == (4500, 1, 28, 28)
    assert (training.images.min(), training.images.max()) == (0, 1)


def test_no_held_out_digit_is_in_the_training_set(data: tuple[Digits, Digits]) -> None:
    training, held_out = ({image.numpy().tobytes() for image in part.images} for part in data)
    assert not training & held_out


@pytest.mark.parametrize("kind", decoys.MAKERS)
def test_decoys_are_images_that_the_seed_decides(kind: str, some: Digits) -> None:
    images = made(kind, some)
    assert images.shape == some.images.shape
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, made(kind, some))
    if kind != "blank":
        assert not torch.equal(images, made(kind, some, seed=1))


def test_blanks_have_next_to_no_contrast(some: Digits) -> None:
    assert made("blank", some).flatten(1).std(1).max() < 0.06


def test_shuffled_digits_keep_their_pixels_but_not_their_places(some: Digits) -> None:
    images = made("shuffled", some)
    torch.testing.assert_close(images.flatten(1).sort(1).values, some.images.flatten(1).sort(1).values)
    assert (images != some.images).flatten(1).any(1).all()


def test_halves_are_of_two_digits_of_different_classes(some: Digits) -> None:
    images, first = made("halves", some), some.images
    for i in range(0, len(images), 2):
        (others,) = (some.images[:, :, 14:] == images[i, :, 14:]).flatten(1).all(1).nonzero(as_tuple=True)
        assert torch.equal(images[i, :, :14], first[i, :, :14])
        assert len(others)
        assert (some.labels[others] != some.labels[i]).all()
    for i in range(1, len(images), 2):
        assert torch.equal(images[i, :, :, :14], first[i, :, :, :14])


def test_blends_show_ink_of_both_digits(some: Digits) -> None:
    drawn_over = made("blends", some)[1::2]
    assert (drawn_over >= some.images[1::2]).all()
    assert (drawn_over > some.images[1::2] + 0.5).flatten(1).any(1).all()


def test_decoys_of_digits_of_one_class_alone_are_refused(some: Digits) -> None:
    alone = Digits(some.images, torch.zeros_like(some.labels))
    with pytest.raises(ValueError, match="one class"):
        made("halves", alone)


def test_kid_of_two_halves_of_one_distribution_is_near_zero_and_grows_with_distance() -> None:
    features = torch.randn(1200, 16, generator=torch.Generator().manual_seed(0))
    same = judge.kid(features[:600], features[600:])
    near, far = (judge.kid(features[:600] + shift, features[600:]) for shift in (0.2, 0.5))
    assert abs(same) < 0.02
    assert 0.03 < near < far


def test_kid_is_unbiased_in_the_number_of_images() -> None:
    generator = torch.Generator().manual_seed(0)
    few = [
        judge.kid(torch.randn(20, 4, generator=generator), torch.randn(20, 4, generator=generator)) for _ in range(500)
    ]
    assert abs(sum(few) / len(few)) < 4 * torch.tensor(few).std() / len(few) ** 0.5


def test_nearest_finds_an_image_learned_by_heart(some: Digits) -> None:
    assert judge.nearest(some.images[:5], some.images) == pytest.approx(0, abs=1e-2)
    assert judge.nearest(some.images[:1], some.images[1:]) > 1


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((2, 1, 28, 28)), "float64"),
        (np.zeros((2, 28, 28), np.float32), r"\(2, 28, 28\)"),
        (np.full((2, 1, 28, 28), np.nan, np.float32), "outside"),
        (np.full((2, 1, 28, 28), -1, np.float32), "outside"),
    ],
)
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, array: np.ndarray, what: str) -> None:
    np.save(tmp_path / "samples.npy", array)
    with pytest.raises(ValueError, match=what):
        judge.read(tmp_path / "samples.npy")
