"""Tests of one xdist_group run in one process, so that their fixtures are set up once.

Whether they do depends on the versions of pytest and pytest-xdist, see requirements/dev.in.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tiers import TWO_WORKERS

GROUPED = """
import pytest

@pytest.mark.xdist_group("shared")
@pytest.mark.parametrize("one", range(8))
def test_in_group(one):
    assert one >= 0
"""


def test_a_group_runs_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", *TWO_WORKERS, "-v", "-p", "no:cacheprovider", "--rootdir=."]
    ran = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    processes = {line.split("]")[0] for line in ran.stdout.splitlines() if "PASSED" in line}
    assert ran.returncode == 0, ran.stdout
    assert len(processes) == 1, ran.stdout
