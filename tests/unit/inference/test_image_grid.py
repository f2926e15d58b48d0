"""The image of samples: the position and brightness of each, and the size of the whole."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpm_inference.image_grid import GAP_GREY, downscaled, grid, png, sheet, thumbnail


def filled(values: list[float], channels: int = 1, size: int = 28) -> NDArray[np.float32]:
    return np.broadcast_to(np.array(values, np.float32)[:, None, None, None], (len(values), channels, size, size))


def cells(image: Image.Image, columns: int, rows: int) -> list[list[object]]:
    """Returns the pixel in the middle of every cell, row by row."""
    return [
        [
            image.getpixel((int((x + 0.5) * image.width / columns), int((y + 0.5) * image.height / rows)))
            for x in range(columns)
        ]
        for y in range(rows)
    ]


def test_samples_are_in_reading_order_in_a_square() -> None:
    image = grid(filled([0.0, 0.2, 0.4, 0.6, 0.8]))
    assert cells(image, 3, 2) == [[0, 51, 102], [153, 204, GAP_GREY]]


def test_every_sample_has_the_same_contrast() -> None:
    faint = filled([0.0, 0.1])
    assert cells(grid(faint), 2, 1) == [[0, 26]]
    assert cells(grid(filled([-3.0, 1.0, 7.0, 0.5])), 2, 2) == [[0, 255], [255, 128]]


def test_every_pixel_of_a_sample_is_shown() -> None:
    sample = np.linspace(0, 1, 6, dtype=np.float32).reshape(1, 1, 2, 3)
    image = np.asarray(grid(sample))
    scale = image.shape[1] // 5
    np.testing.assert_array_equal(
        image[scale // 2 :: scale, scale // 2 :: scale],
        np.pad(np.array([[0, 51, 102], [153, 204, 255]]), 1, constant_values=GAP_GREY),
    )


def test_three_channels_are_colour_others_show_the_first() -> None:
    colour = np.zeros((1, 3, 4, 4), np.float32)
    colour[:, 0], colour[:, 2] = 1.0, 0.2
    image = grid(colour)
    assert image.mode == "RGB"
    assert cells(image, 1, 1) == [[(255, 0, 51)]]
    for channels in (2, 5):
        image = grid(colour[:, [0, 1, 2, 1, 0][:channels]])
        assert image.mode == "L"
        assert cells(image, 1, 1) == [[255]]


@pytest.mark.parametrize(
    ("count", "size", "pixels"),
    [
        (100, 28, (873, 873)),
        (100, 8, (728, 728)),
        (1, 28, (240, 240)),
        (100, 128, (1291, 1291)),
        (2, 28, (472, 240)),
    ],
)
def test_small_images_are_enlarged(count: int, size: int, pixels: tuple[int, int]) -> None:
    assert grid(filled([0.5] * count, size=size)).size == pixels


@pytest.mark.parametrize("count", [0, 101])
def test_no_sample_or_too_many_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 100 samples, not {count}"):
        grid(np.zeros((count, 1, 4, 4), np.float32))


def test_the_png_has_the_same_pixels() -> None:
    image = grid(np.random.default_rng(0).random((9, 1, 8, 8), np.float32))
    with Image.open(BytesIO(png(image))) as again:
        assert again.format == "PNG"
        np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


def test_a_thumbnail_shows_as_many_samples_as_fit() -> None:
    noise = np.random.default_rng(0).random((90, 1, 28, 28), np.float32)
    whole = png(sheet(noise))
    assert thumbnail(noise, len(whole)) == whole
    fewer = thumbnail(noise, len(whole) // 2)
    assert len(fewer) <= len(whole) // 2
    assert fewer in [png(sheet(noise[: columns**2])) for columns in (5, 6, 7)]


def test_a_thumbnail_too_small_for_one_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="not 0"):
        thumbnail(filled([0.5]), 10)


def test_small_samples_are_not_downscaled() -> None:
    noise = np.random.default_rng(0).random((2, 3, 32, 30), np.float32)
    np.testing.assert_array_equal(downscaled(noise), noise)


def test_a_downscaled_pixel_is_the_mean_of_a_square() -> None:
    samples = np.zeros((1, 1, 64, 33), np.float32)
    samples[0, 0, 0, 0], samples[0, 0, :, 32] = 1.0, 0.5
    small = downscaled(samples)
    assert small.dtype == np.float32
    assert small.shape == (1, 1, 32, 17)
    assert small[0, 0, 0, 0] == 0.25
    assert (small[0, 0, :, 16] == 0.5).all()
    assert small[0, 0, 1:, :16].max() == 0


def test_rgba_samples_stay_transparent_where_they_are() -> None:
    samples = np.ones((2, 4, 3, 5), np.float32)
    samples[0, 3] = 0.0
    image = sheet(samples)
    assert image.mode == "RGBA"
    # The first sample is invisible, the second opaque, as is the gap around them.
    assert image.getpixel((1, 1)) == (255, 255, 255, 0)
    assert image.getpixel((7, 1)) == (255, 255, 255, 255)
    assert image.getpixel((0, 0)) == (64, 64, 64, 255)
