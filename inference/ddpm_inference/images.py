"""Samples as a picture that a person can look at."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST = 100
WIDTH = 960
LARGEST_SCALE = 8
GAP = 1
GAP_GREY = 64


def grid(samples: NDArray[np.float32]) -> Image.Image:
    """The samples in reading order, as square as possible, every one with the same contrast.

    0 is black and 1 is white, whatever the sample holds; what lies outside is clipped. Small images are enlarged
    by a whole factor, pixel by pixel.

    Args:
        samples: float (N, C, H, W) in [0, 1], N from 1 to `MOST`. C is 1 for grey or 3 for colour; of any other
            number of channels the first is shown, as grey.

    Raises:
        ValueError: if N is 0 or larger than `MOST`.
    """
    count, channels, height, width = samples.shape
    if not 1 <= count <= MOST:
        raise ValueError(f"a grid shows 1 to {MOST} samples, not {count}")
    shown = samples if channels == 3 else samples[:, :1]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full(
        (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, shown.shape[1]), GAP_GREY, np.uint8
    )
    for index, pixels in enumerate(np.rint(shown.clip(0, 1) * 255).astype(np.uint8)):
        top, left = (
            GAP + place * (size + GAP) for place, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        canvas[top : top + height, left : left + width] = pixels.transpose(1, 2, 0)
    image = Image.fromarray(canvas if channels == 3 else canvas[:, :, 0])
    scale = min(max(WIDTH // image.width, 1), LARGEST_SCALE)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
