"""Fixtures: the cluster, a namespace per test, images, the operator; and what is collected after a failure."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tests.cluster.collect import collect
from tests.cluster.kube import Cluster, Namespace
from tests.cluster.local_node import NODE, node_kubeconfig, without_proxies
from tests.cluster.operator_release import Operator
from tests.cluster.running import Running, running_sampling
from tests.cluster.s3 import s3_in

ROOT = Path(__file__).resolve().parents[2]
COLLECTED = ROOT / "build" / "cluster"

DrawSlot = Callable[[], AbstractContextManager[None]]
# How many tests may draw samples at once: the two CPUs run all of Kubernetes as well.
MAX_DRAWING = 2
# The modules of the slowest tests. They start first: a slow test that starts last leaves the other processes idle.
SLOWEST = ("test_causes", "test_heads", "test_pauses", "test_sampling", "test_sizing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Collects logs and objects of a failed test before its fixtures delete them."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and report.when != "teardown" and cluster:
        folder = COLLECTED / re.sub(r"\W+", "-", item.name).strip("-")
        collect(cluster, folder)
        report.sections.append(("state of the cluster", str(folder)))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups and orders the tests, and deselects those marked `node` on any cluster but that of hack/node.

    Tests that share the fixture `running` form an xdist_group, as do those marked `operator_away` and
    `operator_killed`. The slowest modules come first.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "running" in fixtures:
            item.add_marker(pytest.mark.xdist_group("running"))
        for mark in ("operator_away", "operator_killed"):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.xdist_group(mark))
        if item.get_closest_marker("no_operator") and "operator" in fixtures:
            raise pytest.UsageError(f"{item.nodeid} is marked no_operator but uses the operator: remove one")
        if item.get_closest_marker("alone") and not item.get_closest_marker("long"):
            raise pytest.UsageError(f"{item.nodeid} is marked alone, which needs the mark long as well")
    items.sort(key=lambda item: item.path.stem not in SLOWEST)
    if not runs_on_the_node():
        deselected = [item for item in items if item.get_closest_marker("node")]
        items[:] = [item for item in items if item not in deselected]
        config.hook.pytest_deselected(items=deselected)


def runs_on_the_node() -> bool:
    """Whether the cluster that the fixture `kubeconfig` chooses is that of hack/node."""
    node, given = node_kubeconfig(), os.environ.get("KUBECONFIG")
    return node is not None and (not given or Path(given).resolve() == node.resolve())


def _output(*command: str | Path) -> str:
    """Returns the stdout of a script; its progress on stderr stays visible."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def kubeconfig() -> Path | None:
    """The file named by KUBECONFIG; else that of hack/node if its node runs; else None, kubectl's default (kind)."""
    if runs_on_the_node():
        os.environ.update(without_proxies())
    if given := os.environ.get("KUBECONFIG"):
        return Path(given)
    return node_kubeconfig()


@pytest.fixture(scope="session")
def cluster(kubeconfig: Path | None) -> Iterator[Cluster]:
    """The cluster, shared by all tests; at the end, all namespaces of tests must be deleted."""
    cluster = Cluster.connect(kubeconfig)
    yield cluster
    cluster.wait_for_namespaces_to_go()


@pytest.fixture(scope="session")
def setup_lock(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """A lock for one-time set-up, shared by the processes of pytest-xdist, whose base folders have one parent."""
    return FileLock(tmp_path_factory.getbasetemp().parent / "set-up.lock")


@pytest.fixture(scope="session")
def worker_image(cluster: Cluster, setup_lock: FileLock) -> str:
    """WORKER_IMAGE; else the image of this working tree, built and pushed to the local cluster if missing there."""
    with setup_lock:
        return os.environ.get("WORKER_IMAGE") or _output(ROOT / "hack/images/build")


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster, setup_lock: FileLock) -> str:
    """OPERATOR_IMAGE; else the image of this working tree, built and pushed to the local cluster if missing there."""
    with setup_lock:
        return os.environ.get("OPERATOR_IMAGE") or _output(ROOT / "hack/images/build", "operator")


@pytest.fixture(scope="session")
def operator(cluster: Cluster, operator_image: str, worker_image: str, setup_lock: FileLock) -> Operator:
    """The operator, installed from charts/ as kind-setup.sh does it. It stays installed."""
    helm = shutil.which("helm") or str(Path(_output(NODE / "build", "helm")) / "helm")
    operator = Operator(cluster, Path(helm), ROOT / "charts/ddpm-ray", operator_image, worker_image)
    with setup_lock:
        operator.install()
    return operator


@pytest.fixture(scope="session")
def draw_slot(tmp_path_factory: pytest.TempPathFactory) -> DrawSlot:
    """A context manager that waits for one of `MAX_DRAWING` slots, which all processes of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp().parent
    locks = [FileLock(folder / f"drawing-{number}.lock") for number in range(MAX_DRAWING)]

    @contextmanager
    def acquired() -> Iterator[None]:
        while (lock := next(filter(_try_acquire, locks), None)) is None:
            time.sleep(0.1)
        try:
            yield
        finally:
            lock.release()

    return acquired


def _try_acquire(lock: FileLock) -> bool:
    """Acquires the lock if it is free; False also for a lock that this process itself holds (they are reentrant)."""
    try:
        return not lock.is_locked and bool(lock.acquire(blocking=False))
    except Timeout:
        return False


@pytest.fixture(autouse=True)
def _hold_draw_slot(request: pytest.FixtureRequest, draw_slot: DrawSlot) -> Iterator[None]:
    """Holds a slot during each test that draws. Tests that use `running` share the slot of its sampling."""
    if request.node.get_closest_marker("draws_nothing") or "running" in request.fixturenames:
        yield
    else:
        with draw_slot():
            yield


@pytest.fixture(scope="session")
def running(cluster: Cluster, operator: Operator, draw_slot: DrawSlot) -> Iterator[Running]:
    """A sampling that runs throughout all tests of its group; the last of them deletes it."""
    with running_sampling(cluster, operator, draw_slot()) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A restricted namespace for one test; if the test fails, its contents are in build/cluster/<test>."""
    with cluster.namespace(f"ddpm-test-{secrets.token_hex(4)}") as namespace:
        yield namespace


@pytest.fixture(scope="session")
def s3_environment(cluster: Cluster, worker_image: str) -> Iterator[dict[str, str]]:
    """The AWS_* variables of an S3 server that pods can reach.

    The server of AWS_ENDPOINT_URL if that is set; else that of hack/node if its node runs; else one in a pod.
    """
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    if os.environ.get(names[0]):
        yield {name: os.environ[name] for name in names if name in os.environ}
    elif cluster.kubeconfig and cluster.kubeconfig == node_kubeconfig():
        yield dict(line.split("=", 1) for line in _output(NODE / "s3").splitlines())
    else:
        with s3_in(cluster, worker_image, Path(_output(NODE / "build", "s3")) / "versitygw") as environment:
            yield environment
