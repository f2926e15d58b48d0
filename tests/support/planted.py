"""A working folder whose files have the names of modules, and leave a mark if they are imported."""

from __future__ import annotations

from pathlib import Path

MODULES = (
    *("torch", "numpy", "ray", "json", "logging", "multiprocessing", "psutil", "pydantic", "grpc", "rich", "yaml"),
    *("kubernetes", "kopf", "aiohttp", "fsspec", "shutil", "hashlib", "signal", "pathlib"),
    *("ddpm_inference", "ddpm_operator"),
)


def plant_modules(folder: Path) -> Path:
    """Creates the files; returns the folder in which each of them leaves its name when it is imported."""
    marks = folder / "marks"
    marks.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\nraise SystemExit('{name}')\n")
    return marks


def imported(marks: Path) -> list[str]:
    """Returns the names of the planted modules that were imported."""
    return sorted(path.name for path in marks.iterdir())
