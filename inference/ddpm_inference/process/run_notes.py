"""What the supervising parent must know of a run whose process ends without a word, as Ray can end it.

The parent shares a piece of memory with the driver. The driver keeps its notes in it, and the parent reads them once
the driver has ended.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass

from ddpm_inference.progress import Progress, View

SIZE = 1 << 14
_LENGTH = 8

_memory: mmap.mmap | None = None
_notes: dict[str, object] = {}


def share() -> None:
    """Creates the memory. Called before the driver is forked."""
    global _memory
    _memory = mmap.mmap(-1, SIZE)


def is_shared() -> bool:
    """Whether a parent reads the notes of this process."""
    return _memory is not None


def note(**fields: object) -> None:
    """Adds to the notes, or replaces what they say; does nothing in a process that has no supervisor."""
    if _memory is None:
        return
    _notes.update(fields)
    data = json.dumps(_notes).encode()
    if len(data) <= SIZE - _LENGTH:
        # A driver that dies between the two writes leaves notes that are no JSON, which `read` ignores.
        _memory[_LENGTH : _LENGTH + len(data)] = data
        _memory[:_LENGTH] = len(data).to_bytes(_LENGTH, "little")


def read() -> dict[str, object]:
    """Returns the notes; none if the driver died while it wrote them."""
    if _memory is None:
        return {}
    length = int.from_bytes(_memory[:_LENGTH], "little")
    try:
        notes: dict[str, object] = json.loads(_memory[_LENGTH : _LENGTH + length])
    except ValueError:
        return {}
    return notes


@dataclass
class NotedView:
    """A view that notes what another view shows."""

    view: View
    output_uri: str

    def show_message(self, message: str) -> None:
        self.view.show_message(message)

    def show_progress(self, progress: Progress) -> None:
        note(phase=progress.phase, done=progress.done, total=progress.total, output=self.output_uri)
        self.view.show_progress(progress)
