"""The cluster, a namespace a test, the worker image, and what is kept of a failure."""

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
from tests.cluster.local_node import NODE, nodes_kubeconfig, past_proxies
from tests.cluster.operator_release import Operator
from tests.cluster.running import Running, one_running
from tests.cluster.s3 import s3_in

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "cluster"

Place = Callable[[], AbstractContextManager[None]]
# As many tests draw at once, on a machine of two CPUs that has all of Kubernetes beside them.
AT_WORK = 2
# Whatever begins last keeps the other processes waiting for its end.
LONGEST = ("test_causes", "test_heads", "test_pauses", "test_sampling", "test_sizing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What failed is looked at before fixtures take it away, those of modules included."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and report.when != "teardown" and cluster:
        folder = KEPT / re.sub(r"\W+", "-", item.name).strip("-")
        collect(cluster, folder)
        report.sections.append(("what was on the cluster", str(folder)))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another cluster, tests of the one of hack/node are no part of the run.

    What shares the one sampling at work is given to one of pytest-xdist's processes, as is what takes the operator
    away, and what kills it; and what takes long begins first.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "running" in fixtures:
            item.add_marker(pytest.mark.xdist_group("running"))
        for mark in ("operator_away", "operator_killed"):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.xdist_group(mark))
        if item.get_closest_marker("no_operator") and "operator" in fixtures:
            raise pytest.UsageError(f"{item.nodeid} has the mark no_operator and uses the operator: remove one")
        if item.get_closest_marker("alone") and not item.get_closest_marker("long"):
            raise pytest.UsageError(f"{item.nodeid} has the mark alone, and nothing runs alone that is not long")
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    if not runs_on_the_node():
        others = [item for item in items if item.get_closest_marker("node")]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)


def runs_on_the_node() -> bool:
    """Whether the cluster that `kubeconfig` chooses is that of hack/node."""
    nodes, given = nodes_kubeconfig(), os.environ.get("KUBECONFIG")
    return nodes is not None and (not given or Path(given).resolve() == nodes.resolve())


def _say(*command: str | Path) -> str:
    """What a script of the project prints; its progress stays visible."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def kubeconfig() -> Path | None:
    """KUBECONFIG's; else that of the one-node cluster if it runs; else the user's own (kind's)."""
    if runs_on_the_node():
        os.environ.update(past_proxies())
    if given := os.environ.get("KUBECONFIG"):
        return Path(given)
    return nodes_kubeconfig()


@pytest.fixture(scope="session")
def cluster(kubeconfig: Path | None) -> Iterator[Cluster]:
    """The cluster that all tests share."""
    cluster = Cluster.connect(kubeconfig)
    yield cluster
    cluster.wait_for_namespaces_to_go()


@pytest.fixture(scope="session")
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """For what is set up once for all of pytest-xdist's processes, whose folders have the one above in common."""
    return FileLock(tmp_path_factory.getbasetemp().parent / "set-up.lock")


@pytest.fixture(scope="session")
def worker_image(cluster: Cluster, one_at_a_time: FileLock) -> str:
    """WORKER_IMAGE; else the image of the tree as it is, built and moved to the local cluster if lacking."""
    with one_at_a_time:
        return os.environ.get("WORKER_IMAGE") or _say(ROOT / "hack/images/build")


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster, one_at_a_time: FileLock) -> str:
    """OPERATOR_IMAGE; else the image of the tree as it is, built and moved to the local cluster if lacking."""
    with one_at_a_time:
        return os.environ.get("OPERATOR_IMAGE") or _say(ROOT / "hack/images/build", "operator")


@pytest.fixture(scope="session")
def operator(cluster: Cluster, operator_image: str, worker_image: str, one_at_a_time: FileLock) -> Operator:
    """The operator of the tree, installed by the tree's chart as kind-setup.sh does it; it stays installed."""
    helm = shutil.which("helm") or str(Path(_say(NODE / "build", "helm")) / "helm")
    operator = Operator(cluster, Path(helm), ROOT / "charts/ddpm-ray", operator_image, worker_image)
    with one_at_a_time:
        operator.install()
    return operator


@pytest.fixture(scope="session")
def place_to_draw(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One of `AT_WORK` places for all of pytest-xdist's processes, once there is one, for the time of a block."""
    folder = tmp_path_factory.getbasetemp().parent
    locks = [FileLock(folder / f"at-work-{number}.lock") for number in range(AT_WORK)]

    @contextmanager
    def taken() -> Iterator[None]:
        while (lock := next(filter(_taken, locks), None)) is None:
            time.sleep(0.1)
        try:
            yield
        finally:
            lock.release()

    return taken


def _taken(lock: FileLock) -> bool:
    """Whether it was free, and no other place of this process's own; it is taken now."""
    try:
        return not lock.is_locked and bool(lock.acquire(blocking=False))
    except Timeout:
        return False


@pytest.fixture(autouse=True)
def _its_place(request: pytest.FixtureRequest, place_to_draw: Place) -> Iterator[None]:
    """For a test that draws; those of the group `running` have that of their sampling."""
    if request.node.get_closest_marker("draws_nothing") or "running" in request.fixturenames:
        yield
    else:
        with place_to_draw():
            yield


@pytest.fixture(scope="session")
def running(cluster: Cluster, operator: Operator, place_to_draw: Place) -> Iterator[Running]:
    """A sampling at work, for the group of that name; the last of its tests deletes it."""
    with one_running(cluster, operator, place_to_draw()) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A restricted namespace of the test's own; if the test fails, build/cluster/<test> tells what was in it."""
    with cluster.namespace(f"ddpm-test-{secrets.token_hex(4)}") as namespace:
        yield namespace


@pytest.fixture(scope="session")
def s3_environment(cluster: Cluster, worker_image: str) -> Iterator[dict[str, str]]:
    """An S3 server that pods reach, as the variables that a client needs.

    AWS_ENDPOINT_URL and the keys if they are set; else the server of the one-node cluster; else one in a pod.
    """
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    if os.environ.get(names[0]):
        yield {name: os.environ[name] for name in names if name in os.environ}
    elif cluster.kubeconfig and cluster.kubeconfig == nodes_kubeconfig():
        yield dict(line.split("=", 1) for line in _say(NODE / "s3").splitlines())
    else:
        with s3_in(cluster, worker_image, Path(_say(NODE / "build", "s3")) / "versitygw") as environment:
            yield environment
