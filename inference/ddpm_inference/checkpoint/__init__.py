"""Checkpoints: reads untrusted files into verified weights, their architecture and their training schedule.

Nothing here imports torch into the calling process, so the driver, which only passes weights on, stays small.
"""

from __future__ import annotations

from ddpm_inference.checkpoint.file import SCHEDULE_NOTE, Checkpoint, load, load_from, save
from ddpm_inference.checkpoint.conversion import convert
from ddpm_inference.checkpoint.location import fetch

__all__ = ["SCHEDULE_NOTE", "Checkpoint", "convert", "fetch", "load", "load_from", "save"]
