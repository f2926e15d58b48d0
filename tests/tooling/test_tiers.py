"""The runner of all tests: what it counts, what it requires, and that it leaves no cluster on the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import tiers
from tests.tiers import Result

GREEN = Result("cluster", "passed", passed=7, seconds=61.0)


class Machine:
    """One with a local cluster or without, where kind-setup.sh and all else only note that they were called."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.runs = False
        self.result = GREEN
        self.raises: BaseException | None = None
        self.up = self.down = 0
        self.footprints = [{"link eth0"}, {"link eth0"}]
        patch.delenv("KUBECONFIG", raising=False)
        patch.setattr(tiers, "why_no_cluster", lambda: "")
        patch.setattr(tiers, "local_cluster_runs", lambda: self.runs)
        patch.setattr(tiers, "set_cluster_up", lambda: self._called("up", self.up))
        patch.setattr(tiers, "take_cluster_down", lambda: self._called("down", self.down))
        patch.setattr(tiers, "footprint", lambda: self.footprints.pop(0))
        patch.setattr(tiers, "run_cluster_tests", self._tests)

    def _called(self, what: str, code: int) -> int:
        self.calls.append(what)
        return code

    def _tests(self, which: str, note: str = "") -> Result:
        self.calls.append("tests")
        if self.raises:
            raise self.raises
        return self.result


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_cluster_that_was_started_for_the_tests_is_taken_down(machine: Machine) -> None:
    result = tiers.run_cluster_tier()
    assert (result.state, result.passed, result.failed) == ("passed", 7, 0)
    assert machine.calls == ["up", "tests", "down"]


def test_a_cluster_that_was_there_stays(machine: Machine) -> None:
    machine.runs = True
    assert tiers.run_cluster_tier().state == "passed"
    assert machine.calls == ["up", "tests"]


def test_on_the_cluster_of_kubeconfig_nothing_is_started_or_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somebodys")
    assert tiers.run_cluster_tier().state == "passed"
    assert machine.calls == ["tests"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_takes_its_cluster_down(machine: Machine, end: BaseException) -> None:
    machine.raises = end
    with pytest.raises(type(end)):
        tiers.run_cluster_tier()
    assert machine.calls == ["up", "tests", "down"]


def test_what_the_cluster_has_left_on_the_machine_is_a_failure_and_is_told(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.footprints = [{"link eth0"}, {"link eth0", "link ddpm-ray"}]
    result = tiers.run_cluster_tier()
    assert (result.state, result.passed, result.failed) == ("FAILED", 7, 1)
    assert "changed this machine" in result.note
    assert "+ link ddpm-ray" in capsys.readouterr().out


def test_what_an_earlier_cluster_had_left_may_go_but_no_rule_of_the_machines_own() -> None:
    before = {"link ddpm-ray", "cgroup /sys/fs/cgroup/ddpm-ray", "iptables -A INPUT -j DROP", "enabled /etc/x"}
    assert tiers.changed(before, set()) == ["- enabled /etc/x", "- iptables -A INPUT -j DROP"]


def test_a_cluster_that_cannot_be_taken_down_is_a_failure_beside_the_tests_own(machine: Machine) -> None:
    machine.down = 1
    machine.result = Result("cluster", "FAILED", passed=5, failed=2, note="see there")
    result = tiers.run_cluster_tier()
    assert (result.failed, result.note) == (3, "see there; the cluster could not be taken down")


def test_a_cluster_that_does_not_come_up_is_a_failure_and_taken_down(machine: Machine) -> None:
    machine.up = 1
    result = tiers.run_cluster_tier()
    assert (result.state, result.failed) == ("FAILED", 1)
    assert machine.calls == ["up", "down"]


def test_docker_without_kind_is_no_way_to_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert tiers.provider() == "node"
    (tmp_path / "kind").symlink_to("docker")
    assert tiers.provider() == "kind"


@pytest.mark.parametrize("provider", ["kind", "node"])
def test_the_cluster_that_was_decided_on_is_the_one_that_is_set_up_and_taken_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: str
) -> None:
    called = tmp_path / "called"
    for script in ("kind-setup.sh", "hack/node/down"):
        (tmp_path / script).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / script).write_text(f'#!/bin/sh\necho "{script} $*" >>{called}\n')
        (tmp_path / script).chmod(0o755)
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    monkeypatch.setattr(tiers, "provider", lambda: provider)
    assert (tiers.set_cluster_up(), tiers.take_cluster_down()) == (0, 0)
    down = {"kind": "kind-setup.sh --provider kind --delete", "node": "hack/node/down "}[provider]
    assert called.read_text().splitlines() == [f"kind-setup.sh --provider {provider}", down]


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [("passed", "passed", "passed"), ("FAILED", "passed", "FAILED"), ("passed", "FAILED", "FAILED")],
)
def test_two_runs_are_as_good_as_the_worse(one: str, other: str, state: str) -> None:
    def result(state: str) -> Result:
        return Result("cluster", state, passed=3, failed=int(state == "FAILED"), seconds=2.0)

    both = tiers.both(result(one), result(other))
    assert (both.state, both.passed, both.seconds) == (state, 6, 4.0)
    assert both.failed == [one, other].count("FAILED")


def test_failures_and_errors_of_a_report_are_failed_and_skipped_tests_are_not_passed(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        '<testsuites><testsuite tests="10" failures="2" errors="1" skipped="3"/>'
        '<testsuite tests="4" failures="0" errors="0" skipped="0"/></testsuites>'
    )
    assert tiers.count(report) == (8, 3)
    assert tiers.count(tmp_path / "never-written.xml") == (0, 0)


def test_a_tier_without_tests_does_not_look_green(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    (tmp_path / "tests/empty").mkdir(parents=True)
    result = tiers.Pytest("empty").run()
    assert (result.state, result.failed) == ("FAILED", 1)


def test_how_long_each_test_took_is_kept_and_never_counted_for_another_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    folder = tmp_path / "tests/quick"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text("def test_it(): pass")
    assert tiers.Pytest("quick", part="one").run().passed == 1
    (report,) = (tmp_path / "build/junit").iterdir()
    assert report.name == "quick-one.xml"
    assert 'name="test_it" time="' in report.read_text()
    assert tiers.Pytest("quick", ["--no-such-option"], part="one").run().passed == 0


def test_the_table_has_a_line_a_tier_with_times_and_notes() -> None:
    lines = tiers.table([GREEN, Result("ray", "could not run", note="no Ray")]).splitlines()
    assert [line.split() for line in lines] == [
        ["TIER", "RESULT", "PASSED", "FAILED", "TIME"],
        ["cluster", "passed", "7", "0", "1", "min", "01", "s"],
        ["ray", "could", "not", "run", "0", "0", "0", "min", "00", "s", "no", "Ray"],
    ]
    assert len({line.index("min") for line in lines[1:]}) == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 0), (["--require", "cluster"], 1), (["--tier", "cluster"], 1), (["--tier", "unit"], 0)],
)
def test_a_tier_that_could_not_run_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    could_not = Result("cluster", "could not run", note="no Docker")
    green = Result("", "passed", passed=1)
    monkeypatch.setattr(tiers, "RUN", {"unit": lambda: green, "ray": lambda: green, "cluster": lambda: could_not})
    monkeypatch.setattr("tests.tiers.signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["tiers.py", *arguments])
    assert tiers.main() == code
    said = capsys.readouterr().out
    assert ("cluster  FAILED" in said) == bool(code)
