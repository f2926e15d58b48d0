"""tests/tiers.py: what it counts, what it requires, and that it stops the cluster that it started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiers
from tests.tiers import Result

GREEN = Result("cluster", "passed", passed=7, seconds=61.0)


class Machine:
    """A machine with or without a local cluster, where kind-setup.sh and the rest only record their calls."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.runs = False
        self.result = GREEN
        self.raises: BaseException | None = None
        self.start_code = self.stop_code = 0
        self.footprints = [{"link eth0"}, {"link eth0"}]
        patch.delenv("KUBECONFIG", raising=False)
        patch.setattr(tiers, "why_no_cluster", lambda: "")
        patch.setattr(tiers, "local_cluster_runs", lambda: self.runs)
        patch.setattr(tiers, "start_cluster", lambda: self._record("start", self.start_code))
        patch.setattr(tiers, "stop_cluster", lambda: self._record("stop", self.stop_code))
        patch.setattr(tiers, "footprint", lambda: self.footprints.pop(0))
        patch.setattr(tiers, "run_cluster_tests", self._run_tests)

    def _record(self, call: str, code: int) -> int:
        self.calls.append(call)
        return code

    def _run_tests(self, selection: str, note: str = "") -> Result:
        self.calls.append("tests")
        if self.raises:
            raise self.raises
        return self.result


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_cluster_started_for_the_tests_is_stopped(machine: Machine) -> None:
    result = tiers.run_cluster_tier()
    assert (result.state, result.passed, result.failed) == ("passed", 7, 0)
    assert machine.calls == ["start", "tests", "stop"]


def test_a_running_cluster_is_kept(machine: Machine) -> None:
    machine.runs = True
    assert tiers.run_cluster_tier().state == "passed"
    assert machine.calls == ["start", "tests"]


def test_a_cluster_of_kubeconfig_is_neither_started_nor_stopped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    assert tiers.run_cluster_tier().state == "passed"
    assert machine.calls == ["tests"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_stops_its_cluster(machine: Machine, end: BaseException) -> None:
    machine.raises = end
    with pytest.raises(type(end)):
        tiers.run_cluster_tier()
    assert machine.calls == ["start", "tests", "stop"]


def test_traces_left_on_the_machine_are_printed_and_fail(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.footprints = [{"link eth0"}, {"link eth0", "link ddpm-ray"}]
    result = tiers.run_cluster_tier()
    assert (result.state, result.passed, result.failed) == ("FAILED", 7, 1)
    assert "changed this machine" in result.note
    assert "+ link ddpm-ray" in capsys.readouterr().out


def test_removed_traces_pass_but_removed_machine_rules_fail() -> None:
    before = {"link ddpm-ray", "cgroup /sys/fs/cgroup/ddpm-ray", "iptables -A INPUT -j DROP", "enabled /etc/x"}
    assert tiers.footprint_changes(before, set()) == ["- enabled /etc/x", "- iptables -A INPUT -j DROP"]


def test_a_failed_stop_is_counted_beside_test_failures(machine: Machine) -> None:
    machine.stop_code = 1
    machine.result = Result("cluster", "FAILED", passed=5, failed=2, note="see there")
    result = tiers.run_cluster_tier()
    assert (result.failed, result.note) == (3, "see there; the cluster could not be stopped")


def test_a_failed_start_fails_and_is_cleaned_up(machine: Machine) -> None:
    machine.start_code = 1
    result = tiers.run_cluster_tier()
    assert (result.state, result.failed) == ("FAILED", 1)
    assert machine.calls == ["start", "stop"]


def test_docker_without_kind_selects_the_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert tiers.provider() == "node"
    (tmp_path / "kind").symlink_to("docker")
    assert tiers.provider() == "kind"


@pytest.mark.parametrize("provider", ["kind", "node"])
def test_the_same_provider_starts_and_stops_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: str
) -> None:
    calls = tmp_path / "calls"
    for script in ("kind-setup.sh", "hack/node/down"):
        (tmp_path / script).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / script).write_text(f'#!/bin/sh\necho "{script} $*" >>{calls}\n')
        (tmp_path / script).chmod(0o755)
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    monkeypatch.setattr(tiers, "provider", lambda: provider)
    assert (tiers.start_cluster(), tiers.stop_cluster()) == (0, 0)
    down = {"kind": "kind-setup.sh --provider kind --delete", "node": "hack/node/down "}[provider]
    assert calls.read_text().splitlines() == [f"kind-setup.sh --provider {provider}", down]


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [("passed", "passed", "passed"), ("FAILED", "passed", "FAILED"), ("passed", "FAILED", "FAILED")],
)
def test_combined_runs_fail_if_either_failed(one: str, other: str, state: str) -> None:
    def result(state: str) -> Result:
        return Result("cluster", state, passed=3, failed=int(state == "FAILED"), seconds=2.0)

    total = tiers.combined(result(one), result(other))
    assert (total.state, total.passed, total.seconds) == (state, 6, 4.0)
    assert total.failed == [one, other].count("FAILED")


def test_report_counts_errors_as_failed_and_skips_as_neither(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        '<testsuites><testsuite tests="10" failures="2" errors="1" skipped="3"/>'
        '<testsuite tests="4" failures="0" errors="0" skipped="0"/></testsuites>'
    )
    assert tiers.read_report(report) == (8, 3)
    assert tiers.read_report(tmp_path / "never-written.xml") == (0, 0)


def test_a_tier_without_tests_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    (tmp_path / "tests/empty").mkdir(parents=True)
    result = tiers.Pytest("empty").run()
    assert (result.state, result.failed) == ("FAILED", 1)


def test_durations_are_kept_and_stale_reports_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    folder = tmp_path / "tests/quick"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text("def test_it(): pass")
    assert tiers.Pytest("quick", part="one").run().passed == 1
    (report,) = (tmp_path / "build/junit").iterdir()
    assert report.name == "quick-one.xml"
    assert 'name="test_it" time="' in report.read_text()
    assert tiers.Pytest("quick", ["--no-such-option"], part="one").run().passed == 0


def test_table_has_one_line_per_tier() -> None:
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
def test_a_required_tier_that_cannot_run_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    could_not = Result("cluster", "could not run", note="no Docker")
    green = Result("", "passed", passed=1)
    run = {
        "unit": lambda: green,
        "slow": lambda: green,
        "tooling": lambda: green,
        "ray": lambda: green,
        "cluster": lambda: could_not,
    }
    monkeypatch.setattr(tiers, "RUN", run)
    monkeypatch.setattr(tiers, "RUN_BY_DEFAULT", run)
    monkeypatch.setattr("tests.tiers.signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["tiers.py", *arguments])
    assert tiers.main() == code
    output = capsys.readouterr().out
    assert ("cluster  FAILED" in output) == bool(code)


class Checkout:
    """A git repository with one file of the tooling, whose tier passes or fails as `passes` says."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.runs = 0
        self.passes = True
        subprocess.run(["git", "init", "-q", folder], check=True)
        self.write("hack/build", "one")
        (folder / tiers.LAST_PASSED).parent.mkdir(parents=True)
        patch.setattr(tiers, "ROOT", folder)
        patch.setattr(tiers.Pytest, "run", lambda _: self._run())

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _run(self) -> Result:
        self.runs += 1
        return Result("tooling", "passed" if self.passes else "FAILED", failed=int(not self.passes))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


def test_tooling_runs_until_it_passes_and_again_after_a_change(checkout: Checkout) -> None:
    checkout.passes = False
    states = [tiers.run_tooling_tier_if_changed().state]
    checkout.passes = True
    states += [tiers.run_tooling_tier_if_changed().state for _ in range(2)]
    checkout.write("hack/build", "two")
    states.append(tiers.run_tooling_tier_if_changed().state)
    (checkout.folder / "hack/build").chmod(0o755)
    states.append(tiers.run_tooling_tier_if_changed().state)
    checkout.write("README.md", "no part of the tooling")
    states.append(tiers.run_tooling_tier_if_changed().state)
    assert states == ["FAILED", "passed", "unchanged", "passed", "passed", "unchanged"]


def test_a_named_tooling_tier_runs_unchanged(checkout: Checkout) -> None:
    assert [tiers.run_tooling_tier().state for _ in range(2)] == ["passed", "passed"]
    assert checkout.runs == 2


def test_tooling_runs_where_git_cannot_list_its_files(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(checkout.folder / "no-repository"))
    assert [tiers.run_tooling_tier_if_changed().state for _ in range(2)] == ["passed", "passed"]


def test_files_changed_during_the_run_are_not_recorded(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_and_edit(_: tiers.Pytest) -> Result:
        checkout.write("hack/build", "edited meanwhile")
        return GREEN

    monkeypatch.setattr(tiers.Pytest, "run", run_and_edit)
    tiers.run_tooling_tier()
    assert not tiers.tooling_unchanged()


def test_every_file_that_tooling_depends_on_exists() -> None:
    assert [name for name in tiers.TOOLING_FILES if not (tiers.ROOT / name).exists()] == []


def test_an_unchanged_tier_is_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tiers, "TIERS", ("tooling",))
    monkeypatch.setattr(tiers, "tooling_unchanged", lambda: True)
    monkeypatch.setattr("tests.tiers.signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["tiers.py"])
    assert tiers.main() == 0
    assert "tooling  unchanged" in capsys.readouterr().out
