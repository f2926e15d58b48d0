"""Runs the tiers of tests this machine can run, and says at the end which ran and which could not, and why.

unit     no Ray, no servers: seconds
ray      a real local Ray, real `ray start` heads, a real S3 server (its part needs Go)
cluster  a real Kubernetes: KUBECONFIG if set, else kind where Docker answers, else tests/node on Linux as root
long     the same, for what takes minutes; only when asked for
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
TIERS = ("unit", "ray", "cluster")
# A test that starts a Ray or a pod waits for much of its time. An xdist_group shares what is dear to set up.
TWO_AT_ONCE = ["-n", "2", "--dist=loadgroup", "--durations=10"]


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
    """One run of pytest over a tier's folder; its counts come from the JUnit file, not from the text."""

    tier: str
    options: list[str] = field(default_factory=list)
    note: str = ""

    def run(self) -> Result:
        started = time.monotonic()
        with TemporaryDirectory() as folder:
            report = Path(folder) / "junit.xml"
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


def docker_answers() -> bool:
    if shutil.which("docker") is None or shutil.which("kind") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode == 0


def why_no_cluster() -> str:
    """The reason why this machine cannot have a cluster, or "" if it can."""
    if os.environ.get("KUBECONFIG") or docker_answers():
        return ""
    others = "set KUBECONFIG, or start Docker and install kind"
    if sys.platform != "linux":
        return others
    if os.geteuid() != 0:
        return f"{others}, or run as root for the cluster of tests/node"
    if shutil.which("go") is None:
        return f"{others}, or install Go for the cluster of tests/node"
    return ""


def local_cluster_runs() -> bool:
    if docker_answers():
        clusters = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout
        return "ddpm-ray" in clusters.split()
    return subprocess.run([ROOT / "tests/node/kubeconfig"], capture_output=True, check=False).returncode == 0


def take_cluster_down() -> int:
    """Images and programs stay in the cache, so that the next run is quick."""
    down = [ROOT / "kind-setup.sh", "--delete"] if docker_answers() else [ROOT / "tests/node/down"]
    return subprocess.run(down, cwd=ROOT, check=False).returncode


def run_cluster_tests(which: str, note: str = "") -> Result:
    """Two at once, and then, one by one, those that take the operator away from all."""
    shared = Pytest("cluster", [*TWO_AT_ONCE, "-m", f"not alone and {which}"], note).run()
    return both(shared, Pytest("cluster", ["--durations=10", "-m", f"alone and {which}"]).run())


def run_cluster_tier(which: str = "not long") -> Result:
    """The cluster's tests, on a cluster that is started if there is none.

    Args:
        which: of them, in pytest's words for `-m`.
    """
    reason = why_no_cluster()
    if reason:
        return Result("cluster", "could not run", note=reason)
    if os.environ.get("KUBECONFIG"):
        return run_cluster_tests(which, "on the cluster of KUBECONFIG")
    started, was_there = time.monotonic(), local_cluster_runs()
    if subprocess.run([ROOT / "kind-setup.sh"], cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode == 0:
        result = run_cluster_tests(which)
    else:
        result = Result("cluster", "FAILED", failed=1, note="kind-setup.sh failed, see above")
    if not was_there and take_cluster_down() != 0:
        result = replace(
            result, state="FAILED", failed=result.failed + 1, note="the cluster could not be taken down"
        )
    return replace(result, seconds=time.monotonic() - started)


RUN = {
    "unit": lambda: Pytest("unit", ["-n", "auto", "--dist=worksteal"]).run(),
    "ray": run_ray_tier,
    "cluster": run_cluster_tier,
    "long": partial(run_cluster_tier, "long"),
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=tuple(RUN), help="run this tier alone")
    parser.add_argument(
        "--require", choices=TIERS, action="append", default=[], help="fail if this tier cannot run"
    )
    args = parser.parse_args()

    results = []
    for tier in [args.tier] if args.tier else TIERS:
        print(f"\n== {tier} ==", flush=True)
        results.append(replace(RUN[tier](), tier=tier))
    for result in results:
        if result.state == "could not run" and result.tier in [*args.require, args.tier]:
            result.state, result.failed = "FAILED", 1

    print(
        f"\n{table(results)}\n\n{sum(r.passed for r in results)} passed, {sum(r.failed for r in results)} failed"
    )
    return int(any(r.failed for r in results))


if __name__ == "__main__":
    sys.exit(main())
