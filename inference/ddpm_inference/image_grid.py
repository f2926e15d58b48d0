"""Samples as a picture that a person can look at."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_IMAGES = 100
WIDTH = 960
MAX_SCALE = 8
THUMB = 32
GAP = 1
GAP_GREY = 64


def grid(samples: NDArray[np.float32]) -> Image.Image:
    """A `sheet` for a person to look at: small images are enlarged by a whole factor, pixel by pixel."""
    image = sheet(samples)
    scale = min(max(WIDTH // image.width, 1), MAX_SCALE)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def thumbnail(samples: NDArray[np.float32], most_bytes: int) -> bytes:
    """PNG of a `sheet` of the first samples, of as many as its bytes allow.

    Raises:
        ValueError: if N is 0 or larger than `MOST`, or not even one sample fits.
    """
    columns = math.ceil(math.sqrt(len(samples)))
    while True:
        data = png(sheet(samples[: columns**2]))
        if len(data) <= most_bytes:
            return data
        columns = min(columns - 1, int(columns * math.sqrt(most_bytes / len(data))))


def reduced(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples at `THUMB` pixels a side or less: each pixel the mean of a square of whole ones.

    Args:
        samples: float (N, C, H, W).
    """
    count, channels, height, width = samples.shape
    side = -(-max(height, width) // THUMB)
    whole = np.pad(samples, ((0, 0), (0, 0), (0, -height % side), (0, -width % side)), mode="edge")
    squares = whole.reshape(count, channels, -(-height // side), side, -(-width // side), side)
    means: NDArray[np.float32] = squares.mean(axis=(3, 5))
    return means


def sheet(samples: NDArray[np.float32]) -> Image.Image:
    """The samples in reading order, as square as possible, every one with the same contrast.

    0 is black and 1 is white, whatever the sample holds; what lies outside is clipped.

    Args:
        samples: float (N, C, H, W) in [0, 1], N from 1 to `MOST`. C is 1 for grey or 3 for colour; of any other
            number of channels the first is shown, as grey.

    Raises:
        ValueError: if N is 0 or larger than `MOST`.
    """
    count, channels, height, width = samples.shape
    if not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"a grid shows 1 to {MAX_IMAGES} samples, not {count}")
    shown = samples if channels == 3 else samples[:, :1]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, shown.shape[1]), GAP_GREY, np.uint8)
    for index, pixels in enumerate(np.rint(shown.clip(0, 1) * 255).astype(np.uint8)):
        top, left = (
            GAP + place * (size + GAP) for place, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        canvas[top : top + height, left : left + width] = pixels.transpose(1, 2, 0)
    return Image.fromarray(canvas if channels == 3 else canvas[:, :, 0])


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
