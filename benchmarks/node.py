"""Measures the start and the stop of the node without Docker, once it is built. Needs root, and no running node."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

NODE = Path(__file__).resolve().parents[1] / "hack/node"
ROUNDS = 5


def seconds(script: str) -> float:
    """Returns the wall-clock seconds of one of the node's scripts; its progress goes to stderr."""
    start = time.perf_counter()
    subprocess.run([NODE / script], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    if subprocess.run([NODE / "kubeconfig"], capture_output=True, check=False).returncode == 0:
        print("a node is running, and this would stop it: run hack/node/down first", file=sys.stderr)
        return 2
    seconds("up")  # builds missing parts
    seconds("down")
    taken = [(seconds("up"), seconds("down")) for _ in range(ROUNDS)]
    for name, column in zip(("up", "down"), zip(*taken, strict=True), strict=True):
        print(f"hack/node/{name}: {statistics.median(column):.1f} s, from {min(column):.1f} to {max(column):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
