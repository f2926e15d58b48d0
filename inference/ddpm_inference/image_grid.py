"""Renders samples as one image: the grid that a run writes, and the thumbnail of the progress server."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_IMAGES = 100
GRID_WIDTH = 960
MAX_SCALE = 8
THUMBNAIL_SIDE = 32
GAP = 1
GAP_GREY = 64


def grid(samples: NDArray[np.float32]) -> Image.Image:
    """Returns a `sheet` in which small images are enlarged by a whole factor, pixel by pixel."""
    image = sheet(samples)
    scale = min(max(GRID_WIDTH // image.width, 1), MAX_SCALE)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def thumbnail(samples: NDArray[np.float32], max_bytes: int) -> bytes:
    """Returns the PNG of a `sheet` of the first samples, as many as fit into `max_bytes`.

    Raises:
        ValueError: if N is 0 or larger than `MAX_IMAGES`, or not even one sample fits.
    """
    columns = math.ceil(math.sqrt(len(samples)))
    while True:
        data = png(sheet(samples[: columns**2]))
        if len(data) <= max_bytes:
            return data
        columns = min(columns - 1, int(columns * math.sqrt(max_bytes / len(data))))


def downscaled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the samples with at most `THUMBNAIL_SIDE` pixels a side: each pixel the mean of a square of pixels.

    Args:
        samples: float (N, C, H, W).
    """
    count, channels, height, width = samples.shape
    side = -(-max(height, width) // THUMBNAIL_SIDE)
    padded = np.pad(samples, ((0, 0), (0, 0), (0, -height % side), (0, -width % side)), mode="edge")
    squares = padded.reshape(count, channels, -(-height // side), side, -(-width // side), side)
    means: NDArray[np.float32] = squares.mean(axis=(3, 5))
    return means


def sheet(samples: NDArray[np.float32]) -> Image.Image:
    """Returns an image of the samples in reading order, as square as possible, all with the same contrast.

    0 is black and 1 is white in every sample; values outside are clipped.

    Args:
        samples: float (N, C, H, W) in [0, 1], N from 1 to `MAX_IMAGES`. C is 1 for grey, 3 for colour, 4 for
            colour with alpha, which stays; for any other C the first channel is shown in grey.

    Raises:
        ValueError: if N is 0 or larger than `MAX_IMAGES`.
    """
    count, channels, height, width = samples.shape
    if not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"a grid shows 1 to {MAX_IMAGES} samples, not {count}")
    shown = samples if channels in (3, 4) else samples[:, :1]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, shown.shape[1]), GAP_GREY, np.uint8)
    if channels == 4:
        canvas[..., 3] = 255
    for index, pixels in enumerate(np.rint(shown.clip(0, 1) * 255).astype(np.uint8)):
        row, column = divmod(index, columns)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        canvas[top : top + height, left : left + width] = pixels.transpose(1, 2, 0)
    return Image.fromarray(canvas if channels in (3, 4) else canvas[:, :, 0])


def png(image: Image.Image) -> bytes:
    """Returns the bytes of a PNG file."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
