"""Checkpoints: the weights of a network, what it is, and how it was trained, from files that nobody has to trust.

Nothing here imports torch into the calling process: the driver, which only hands weights on, stays small.
"""

from __future__ import annotations

from ddpm_inference.checkpoint.file import Checkpoint, convert, load, save
from ddpm_inference.checkpoint.location import fetch

__all__ = ["Checkpoint", "convert", "fetch", "load", "save"]
