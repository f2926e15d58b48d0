"""Runs the tiers of tests that this machine can run, and prints a table of what ran, what did not, and why.

unit     no Ray, no cluster: each test takes less than two seconds
slow     unit tests that take longer: they compile, start processes, draw many samples or search at random
tooling  the scripts that build images and start clusters, and this program; only if their files have changed
ray      a real local Ray, real `ray start` heads, a real S3 server (built with Go)
cluster  a real Kubernetes: KUBECONFIG if set, else kind where Docker answers, else hack/node on Linux as root
chains   unit tests that take minutes: all steps of every configuration; only on request
long     cluster tests that take minutes; only on request
machine  what the node of hack/node leaves on this machine; needs that no node runs; only on request
"""

from __future__ import annotations

import argparse
import hashlib
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
# JUnit files with the duration of each test, to compare one run with the next.
REPORTS = "build/junit"
# Python may write bytecode: else pytest rewrites the assertions of every test file anew in each of its processes.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
TIERS = ("unit", "slow", "tooling", "ray", "cluster")
SERIAL = ["--durations=10"]
# A test that starts a Ray or a pod mostly waits. Tests of one xdist_group share an expensive set-up.
TWO_WORKERS = ["-n", "2", "--dist=loadgroup", *SERIAL]
# Two tests that draw samples, which is the limit of a node with two CPUs, and one that draws none.
THREE_WORKERS = ["-n", "3", "--dist=loadgroup", *SERIAL]
EVERY_CPU = ["-n", "auto", "--dist=worksteal"]
# The marker of unit tests that take seconds.
SLOW = "slow"
# The marker of tests that take minutes; of the unit tests those of whole chains, which have a tier of their own.
LONG = "long"
CHAINS = "chains"

# What the tier `tooling` tests. A change of any of these files makes a plain `make test` run it.
TOOLING_FILES = (
    ".ci",
    ".dockerignore",
    "Dockerfile.operator",
    "Dockerfile.worker",
    "Makefile",
    "hack",
    "inference/pyproject.toml",
    "kind-setup.sh",
    "operator/pyproject.toml",
    "requirements",
    "tests/cluster/conftest.py",
    "tests/cluster/local_node.py",
    "tests/conftest.py",
    "tests/tiers.py",
    "tests/tooling",
)
# The digest of these files when the tier last passed. Committed, so that a fresh clone knows it too, whatever its
# history: neither a shallow clone nor a fresh clone of `main` can tell which commits are new.
LAST_PASSED = "tests/tooling/last-passed.sha256"


@dataclass
class Result:
    """The outcome of one tier; `state` is passed, FAILED, unchanged or could not run."""

    tier: str
    state: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    note: str = ""


@dataclass
class Pytest:
    """One run of pytest over a tier's folder; its counts come from the JUnit file, not from the output.

    Attributes:
        part: names the run where a tier has several.
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
            # Short, because Ray makes Unix sockets deep below a test's folder, and their paths may have 107 characters.
            paths = [f"--junitxml={report}", f"--basetemp={folder}/t"]
            command = [sys.executable, "-m", "pytest", f"tests/{self.tier}", *paths, *self.options]
            code = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False).returncode
        passed, failed = read_report(report)
        # Exit code 5 is "no tests collected": a tier without tests must not look green.
        state = "passed" if code == 0 else "FAILED"
        return Result(self.tier, state, passed, max(failed, int(code != 0)), time.monotonic() - started, self.note)


def combined(first: Result, second: Result) -> Result:
    """Adds up two runs of one tier."""
    return replace(
        first,
        state=first.state if first.failed else second.state,
        passed=first.passed + second.passed,
        failed=first.failed + second.failed,
        seconds=first.seconds + second.seconds,
    )


def read_report(report: Path) -> tuple[int, int]:
    """Returns (passed, failed) of a JUnit report; (0, 0) if pytest ended before it wrote one."""
    if not report.exists():
        return 0, 0
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - our own pytest wrote it
    passed = failed = 0
    for suite in suites:
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed


def tooling_digest() -> str:
    """Returns the SHA-256 of the names, modes and contents of TOOLING_FILES; "" if git cannot list them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *TOOLING_FILES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return ""
    digest = hashlib.sha256()
    for name in sorted(set(filter(None, listed.stdout.split("\0"))) - {LAST_PASSED}):
        path = ROOT / name
        if path.is_file():
            mode = "x" if os.access(path, os.X_OK) else "-"
            digest.update(f"{mode} {name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def tooling_unchanged() -> bool:
    """Whether the tier last passed with exactly these files; False where that cannot be known."""
    record = ROOT / LAST_PASSED
    return record.exists() and record.read_text().strip() == tooling_digest() != ""


def run_tooling_tier() -> Result:
    """Runs the tier and, if it passes, records the digest of the files that it tested."""
    before = tooling_digest()
    result = Pytest("tooling", EVERY_CPU).run()
    if result.state == "passed" and before and before == tooling_digest() and not tooling_unchanged():
        (ROOT / LAST_PASSED).write_text(f"{before}\n")
        result = replace(result, note=f"commit {LAST_PASSED} with the change")
    return result


def run_tooling_tier_if_changed() -> Result:
    if tooling_unchanged():
        return Result("tooling", "unchanged", note="its files are those it last passed with; TIER=tooling runs it")
    return run_tooling_tier()


def run_ray_tier() -> Result:
    if shutil.which("go") is None:
        note = "without the S3 server: it is built with Go, and `go` is not on PATH"
        return Pytest("ray", [*TWO_WORKERS, "-m", "not s3"], note).run()
    return Pytest("ray", TWO_WORKERS).run()


def kind_can_run() -> bool:
    if shutil.which("docker") is None or shutil.which("kind") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode == 0


def provider() -> str:
    """Returns the --provider of kind-setup.sh that makes the cluster where KUBECONFIG names none."""
    return "kind" if kind_can_run() else "node"


def why_no_node() -> str:
    """Returns the reason why this machine cannot run the node of hack/node, or "" if it can."""
    if sys.platform != "linux":
        return "the node of hack/node needs Linux"
    if os.geteuid() != 0:
        return "run as root for the cluster of hack/node"
    if shutil.which("go") is None:
        return "install Go for the cluster of hack/node"
    return ""


def why_no_cluster() -> str:
    """Returns the reason why this machine cannot have a cluster, or "" if it can."""
    if os.environ.get("KUBECONFIG") or kind_can_run():
        return ""
    alternatives = "set KUBECONFIG, or start Docker and install kind"
    reason = why_no_node()
    return f"{alternatives}, or {reason}" if reason and sys.platform == "linux" else reason and alternatives


def local_cluster_runs() -> bool:
    if provider() == "kind":
        clusters = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout
        return "ddpm-ray" in clusters.split()
    return node_runs()


def node_runs() -> bool:
    return subprocess.run([ROOT / "hack/node/kubeconfig"], capture_output=True, check=False).returncode == 0


def start_cluster() -> int:
    command = [ROOT / "kind-setup.sh", "--provider", provider()]
    return subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode


def stop_cluster() -> int:
    """Stops the local cluster. The node's images and programs stay in the cache, so that the next start is quick."""
    commands = {"kind": [ROOT / "kind-setup.sh", "--provider", "kind", "--delete"], "node": [ROOT / "hack/node/down"]}
    return subprocess.run(commands[provider()], cwd=ROOT, check=False).returncode


def footprint() -> set[str]:
    """Returns a line for each trace of a node on this machine; empty with kind, which runs in containers."""
    if provider() == "kind":
        return set()
    output = subprocess.run([ROOT / "hack/node/footprint"], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines())


def footprint_changes(before: set[str], after: set[str]) -> list[str]:
    """Returns what the node added to the machine, and the machine's own rules and services that it removed.

    Other lines may disappear: an earlier node that crashed left them.
    """
    new = [f"+ {line}" for line in after - before]
    gone = [f"- {line}" for line in before - after if line.startswith(("iptables ", "enabled "))]
    return sorted(new + gone)


def run_cluster_tests(selection: str, note: str = "") -> Result:
    """Runs the cluster tests in three parts, one after the other.

    First three at a time, of which two draw samples; then the tests that take the operator away, beside those that do
    not need it; last those that need the cluster to themselves, all of which are `long`.
    """
    parts = [
        ("", THREE_WORKERS, "not (operator_away or no_operator or alone)"),
        ("operator-away", TWO_WORKERS, "operator_away or no_operator"),
        ("alone", SERIAL, "alone"),
    ]
    parts = parts if selection == LONG else parts[:-1]
    runs = [
        Pytest("cluster", [*options, "-m", f"({marks}) and {selection}"], note, part) for part, options, marks in parts
    ]
    return reduce(combined, [run.run() for run in runs])


def with_failure(result: Result, note: str) -> Result:
    """Returns the result with one more failure, explained by the note."""
    notes = [each for each in (result.note, note) if each]
    return replace(result, state="FAILED", failed=result.failed + 1, note="; ".join(notes))


def run_on_local_cluster(selection: str) -> Result:
    if start_cluster() != 0:
        return Result("cluster", "FAILED", failed=1, note="kind-setup.sh failed, see above")
    return run_cluster_tests(selection)


def run_on_own_cluster(selection: str) -> Result:
    """Starts a cluster, runs the tests and stops it, also on Ctrl-C; the machine must be as before."""
    before = footprint()
    try:
        result = run_on_local_cluster(selection)
    finally:
        stopped = stop_cluster()
    if stopped != 0:
        result = with_failure(result, "the cluster could not be stopped")
    changes = footprint_changes(before, footprint())
    if changes:
        print("\nthe cluster has changed this machine:", *changes, sep="\n  ", flush=True)
        result = with_failure(result, "the cluster has changed this machine, see above")
    return result


def run_cluster_tier(selection: str = f"not {LONG}") -> Result:
    """Runs the cluster tests, on a cluster that is started if none runs.

    Args:
        selection: a marker expression, as for pytest's `-m`.
    """
    reason = why_no_cluster()
    if reason:
        return Result("cluster", "could not run", note=reason)
    if os.environ.get("KUBECONFIG"):
        return run_cluster_tests(selection, "on the cluster of KUBECONFIG")
    started = time.monotonic()
    run = run_on_local_cluster if local_cluster_runs() else run_on_own_cluster
    return replace(run(selection), seconds=time.monotonic() - started)


def run_machine_tier() -> Result:
    reason = why_no_node() or ("a node runs, and these tests stop it: hack/node/down first" if node_runs() else "")
    if reason:
        return Result("machine", "could not run", note=reason)
    return Pytest("machine").run()


RUN = {
    "unit": lambda: Pytest("unit", [*EVERY_CPU, "-m", f"not {SLOW}"]).run(),
    SLOW: lambda: Pytest("unit", [*EVERY_CPU, "-m", f"{SLOW} and not {LONG}"], part=SLOW).run(),
    CHAINS: lambda: Pytest("unit", [*EVERY_CPU, "-m", f"{SLOW} and {LONG}"], part=CHAINS).run(),
    "tooling": run_tooling_tier,
    "ray": run_ray_tier,
    "cluster": run_cluster_tier,
    LONG: partial(run_cluster_tier, LONG),
    "machine": run_machine_tier,
}
# The tiers that a plain `make test` runs in another way than one that is asked for by name.
RUN_BY_DEFAULT = RUN | {"tooling": run_tooling_tier_if_changed}


def table(results: list[Result]) -> str:
    rows = [("TIER", "RESULT", "PASSED", "FAILED", "TIME", "")]
    rows += [
        (
            r.tier,
            r.state,
            str(r.passed),
            str(r.failed),
            f"{r.seconds // 60:.0f} min {r.seconds % 60:02.0f} s",
            r.note,
        )
        for r in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def with_requirements(results: list[Result], required: list[str]) -> list[Result]:
    """Returns the results, where a required tier that could not run has failed."""
    return [
        replace(result, state="FAILED", failed=1)
        if result.state == "could not run" and result.tier in required
        else result
        for result in results
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=tuple(RUN), action="append", default=[], help="run this tier, and no others")
    parser.add_argument("--require", choices=TIERS, action="append", default=[], help="fail if this tier cannot run")
    args = parser.parse_args()

    results = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a cluster that was started is stopped then too
    runners = RUN if args.tier else RUN_BY_DEFAULT
    for tier in args.tier or TIERS:
        print(f"\n== {tier} ==", flush=True)
        results.append(replace(runners[tier](), tier=tier))
    results = with_requirements(results, [*args.require, *args.tier])
    print(f"\n{table(results)}\n\n{sum(r.passed for r in results)} passed, {sum(r.failed for r in results)} failed")
    return int(any(r.failed for r in results))


if __name__ == "__main__":
    sys.exit(main())
