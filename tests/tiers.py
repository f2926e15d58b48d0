"""Runs the tiers of tests this machine can run, and says at the end which ran and which could not, and why.

unit     no Ray, no servers: seconds
ray      a real local Ray, real `ray start` heads, a real S3 server (its part needs Go)
cluster  a real Kubernetes: KUBECONFIG if set, else kind where Docker answers, else hack/node on Linux as root
long     the same, for what takes minutes; only when asked for
machine  what the node of hack/node leaves on this machine, for which none may run yet; only when asked for
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
# Says how long each test took, for comparison with the next run.
REPORTS = "build/junit"
TIERS = ("unit", "ray", "cluster")
ONE_BY_ONE = ["--durations=10"]
# A test that starts a Ray or a pod waits for much of its time. An xdist_group shares what is dear to set up.
TWO_AT_ONCE = ["-n", "2", "--dist=loadgroup", *ONE_BY_ONE]
# Two that draw, which is all that may, and one beside them that draws nothing.
THREE_AT_ONCE = ["-n", "3", "--dist=loadgroup", *ONE_BY_ONE]
# The cluster's tests that take minutes, in pytest's words for `-m`.
LONG = "long"


@dataclass
class Result:
    """What became of one tier."""

    tier: str
    state: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    note: str = ""


@dataclass
class Pytest:
    """One run of pytest over a tier's folder; its counts come from the JUnit file, not from the text.

    Attributes:
        part: which of the tier's runs it is, if there are several.
    """

    tier: str
    options: list[str] = field(default_factory=list)
    note: str = ""
    part: str = ""

    def run(self) -> Result:
        started = time.monotonic()
        report = ROOT / REPORTS / f"{'-'.join(filter(None, (self.tier, self.part)))}.xml"
        report.unlink(missing_ok=True)
        with TemporaryDirectory() as folder:
            # A Unix socket of Ray's lies deep in a test's folder, and its path may have 107 characters.
            places = [f"--junitxml={report}", f"--basetemp={folder}/t"]
            command = [sys.executable, "-m", "pytest", f"tests/{self.tier}", *places, *self.options]
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
        passed, failed = count(report)
        # Exit code 5 is "no tests collected": a tier without tests must not look green.
        state = "passed" if code == 0 else "FAILED"
        return Result(self.tier, state, passed, max(failed, int(code != 0)), time.monotonic() - started, self.note)


def both(one: Result, other: Result) -> Result:
    """Two runs over one tier as one result."""
    return replace(
        one,
        state=one.state if one.failed else other.state,
        passed=one.passed + other.passed,
        failed=one.failed + other.failed,
        seconds=one.seconds + other.seconds,
    )


def count(report: Path) -> tuple[int, int]:
    """(passed, failed) of a JUnit report; (0, 0) if pytest did not come far enough to write one."""
    if not report.exists():
        return 0, 0
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - our own pytest wrote it
    passed = failed = 0
    for suite in suites:
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed


def run_ray_tier() -> Result:
    if shutil.which("go") is None:
        note = "without the S3 server: it is built with Go, and `go` is not on PATH"
        return Pytest("ray", [*TWO_AT_ONCE, "-m", "not s3"], note).run()
    return Pytest("ray", TWO_AT_ONCE).run()


def kind_can_run() -> bool:
    if shutil.which("docker") is None or shutil.which("kind") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode == 0


def provider() -> str:
    """Who makes the cluster where KUBECONFIG names none, in kind-setup.sh's words."""
    return "kind" if kind_can_run() else "node"


def why_no_node() -> str:
    """The reason why this machine cannot have the node of hack/node, or "" if it can."""
    if sys.platform != "linux":
        return "the node of hack/node needs Linux"
    if os.geteuid() != 0:
        return "run as root for the cluster of hack/node"
    if shutil.which("go") is None:
        return "install Go for the cluster of hack/node"
    return ""


def why_no_cluster() -> str:
    """The reason why this machine cannot have a cluster, or "" if it can."""
    if os.environ.get("KUBECONFIG") or kind_can_run():
        return ""
    others = "set KUBECONFIG, or start Docker and install kind"
    reason = why_no_node()
    return f"{others}, or {reason}" if reason and sys.platform == "linux" else reason and others


def local_cluster_runs() -> bool:
    if provider() == "kind":
        clusters = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout
        return "ddpm-ray" in clusters.split()
    return node_runs()


def node_runs() -> bool:
    return subprocess.run([ROOT / "hack/node/kubeconfig"], capture_output=True, check=False).returncode == 0


def set_cluster_up() -> int:
    command = [ROOT / "kind-setup.sh", "--provider", provider()]
    return subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode


def take_cluster_down() -> int:
    """Images and programs of the node stay in the cache, so that the next run is quick."""
    by = {"kind": [ROOT / "kind-setup.sh", "--provider", "kind", "--delete"], "node": [ROOT / "hack/node/down"]}
    return subprocess.run(by[provider()], cwd=ROOT, check=False).returncode


def footprint() -> set[str]:
    """What of a node is on this machine, a line each; with kind nothing is on the machine itself."""
    if provider() == "kind":
        return set()
    said = subprocess.run([ROOT / "hack/node/footprint"], capture_output=True, text=True, check=True).stdout
    return set(said.splitlines())


def changed(before: set[str], after: set[str]) -> list[str]:
    """What the node has left on the machine, or taken from it; but what an earlier one had left may go."""
    new = [f"+ {line}" for line in after - before]
    gone = [f"- {line}" for line in before - after if line.startswith(("iptables ", "enabled "))]
    return sorted(new + gone)


def run_cluster_tests(which: str, note: str = "") -> Result:
    """Three at once, of which two draw; what takes the operator away beside what needs none; and what runs alone.

    The last of these are all `long`.
    """
    parts = [
        ("", THREE_AT_ONCE, "not (operator_away or no_operator or alone)"),
        ("operator-away", TWO_AT_ONCE, "operator_away or no_operator"),
        ("alone", ONE_BY_ONE, "alone"),
    ]
    parts = parts if which == LONG else parts[:-1]
    runs = [Pytest("cluster", [*how, "-m", f"({marks}) and {which}"], note, part) for part, how, marks in parts]
    return reduce(both, [it.run() for it in runs])


def with_one_more_failure(result: Result, note: str) -> Result:
    notes = [each for each in (result.note, note) if each]
    return replace(result, state="FAILED", failed=result.failed + 1, note="; ".join(notes))


def tests_on_a_local_cluster(which: str) -> Result:
    if set_cluster_up() != 0:
        return Result("cluster", "FAILED", failed=1, note="kind-setup.sh failed, see above")
    return run_cluster_tests(which)


def tests_on_a_cluster_of_their_own(which: str) -> Result:
    """Whatever ends them, Ctrl-C included, the cluster is taken down; then the machine is as it was before."""
    before = footprint()
    try:
        result = tests_on_a_local_cluster(which)
    finally:
        down = take_cluster_down()
    if down != 0:
        result = with_one_more_failure(result, "the cluster could not be taken down")
    left = changed(before, footprint())
    if left:
        print("\nthe cluster has changed this machine:", *left, sep="\n  ", flush=True)
        result = with_one_more_failure(result, "the cluster has changed this machine, see above")
    return result


def run_cluster_tier(which: str = f"not {LONG}") -> Result:
    """The cluster's tests, on a cluster that is started if there is none.

    Args:
        which: of them, in pytest's words for `-m`.
    """
    reason = why_no_cluster()
    if reason:
        return Result("cluster", "could not run", note=reason)
    if os.environ.get("KUBECONFIG"):
        return run_cluster_tests(which, "on the cluster of KUBECONFIG")
    started = time.monotonic()
    run = tests_on_a_local_cluster if local_cluster_runs() else tests_on_a_cluster_of_their_own
    return replace(run(which), seconds=time.monotonic() - started)


def run_machine_tier() -> Result:
    reason = why_no_node() or ("a node is up, and these end it: hack/node/down first" if node_runs() else "")
    if reason:
        return Result("machine", "could not run", note=reason)
    return Pytest("machine").run()


RUN = {
    "unit": lambda: Pytest("unit", ["-n", "auto", "--dist=worksteal"]).run(),
    "ray": run_ray_tier,
    "cluster": run_cluster_tier,
    LONG: partial(run_cluster_tier, LONG),
    "machine": run_machine_tier,
}


def table(results: list[Result]) -> str:
    rows = [("TIER", "RESULT", "PASSED", "FAILED", "TIME", "")]
    rows += [
        (
            r.tier,
            r.state,
            str(r.passed),
            str(r.failed),
            f"{r.seconds / 60:.0f} min {r.seconds % 60:02.0f} s",
            r.note,
        )
        for r in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def required(results: list[Result], tiers: list[str]) -> list[Result]:
    """The results, where a tier that must run and could not is a failure."""
    return [
        replace(result, state="FAILED", failed=1)
        if result.state == "could not run" and result.tier in tiers
        else result
        for result in results
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=tuple(RUN), action="append", default=[], help="run this tier, and no others")
    parser.add_argument("--require", choices=TIERS, action="append", default=[], help="fail if this tier cannot run")
    args = parser.parse_args()

    results = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is taken down then too
    for tier in args.tier or TIERS:
        print(f"\n== {tier} ==", flush=True)
        results.append(replace(RUN[tier](), tier=tier))
    results = required(results, [*args.require, *args.tier])
    print(f"\n{table(results)}\n\n{sum(r.passed for r in results)} passed, {sum(r.failed for r in results)} failed")
    return int(any(r.failed for r in results))


if __name__ == "__main__":
    sys.exit(main())
