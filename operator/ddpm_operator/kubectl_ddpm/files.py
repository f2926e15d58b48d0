"""What a person names with -f."""

from __future__ import annotations

import sys
from pathlib import Path

from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError


def read(filename: str) -> tuple[str, str]:
    """(text, name for messages) of a file, or of standard input for -.

    Raises:
        FileFault: if it cannot be read.
    """
    try:
        if filename == "-":
            return sys.stdin.read(), "standard input"
        return Path(filename).read_text(encoding="utf-8"), filename
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise ManifestError([f"{filename}: {reason}"]) from error
