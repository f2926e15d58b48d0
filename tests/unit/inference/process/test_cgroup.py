"""The number of OOM kills in this container."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_inference.process import cgroup
from ddpm_inference.process.cgroup import oom_kills

V2 = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
OLD_V1 = "oom_kill_disable 0\nunder_oom 0\n"


@pytest.mark.parametrize(("text", "kills"), [(V2, 2), (V1, 3), (OLD_V1, 0), ("", 0)])
def test_cgroup_v1_and_v2_are_read(text: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counter").write_text(text)
    monkeypatch.setattr(cgroup, "COUNTER_FILES", (tmp_path / "missing", tmp_path / "counter"))
    assert oom_kills() == kills


def test_without_a_cgroup_there_are_no_oom_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "COUNTER_FILES", (tmp_path / "missing",))
    assert oom_kills() == 0
