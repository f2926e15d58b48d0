"""Refusals of the scripts of hack/node: they name the problem and the remedy, and exit with 2."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .conftest import NODE, Completed, PathWith, Run, execute


def assert_refused(completed: Completed, *words: str) -> None:
    assert completed.returncode == 2
    assert completed.stdout == ""
    for word in words:
        assert word in completed.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("up", ["--now"]),
        ("down", ["--force"]),
        ("down", ["--purge", "--purge"]),
        ("gpus", []),
        ("gpus", ["-1"]),
        ("gpus", ["many"]),
        ("gpus", ["1", "2"]),
        ("fake-nodes", ["few"]),
        ("program-image", ["s3"]),
        ("api-away", []),
        ("api-away", ["0"]),
        ("api-away", ["--hang"]),
        ("api-away", ["--hang", "0"]),
    ],
)
def test_wrong_arguments_print_the_usage(run: Run, script: str, arguments: list[str]) -> None:
    assert_refused(run(script, *arguments), f"usage: hack/node/{script}")


def test_an_unknown_group_prints_the_known_ones(run: Run) -> None:
    assert_refused(run("build", "s4"), "'s4'", "coredns govulncheck helm kuberay kubernetes")


@pytest.mark.parametrize("script", ["kubeconfig", "s3", "kuberay", "kueue"])
def test_without_a_node_the_hint_is_up(run: Run, script: str) -> None:
    assert_refused(run(script), "no node is running", "hack/node/up")


def test_a_reused_pid_is_not_taken_for_the_node(run: Run, cache: Path) -> None:
    state = cache / "ddpm-ray" / "node"
    state.mkdir(parents=True)
    (state / "init.pid").write_text(f"{os.getpid()}\n")
    assert_refused(run("kubeconfig"), "no node is running")


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    """A copy of the scripts that every user may run."""
    with TemporaryDirectory() as folder:
        for part in ("node", "images"):
            shutil.copytree(NODE.parent / part, Path(folder) / part)
        Path(folder).chmod(0o755)
        yield Path(folder) / "node"


@pytest.mark.parametrize("script", ["up", "down", "enter"])
def test_an_ordinary_user_is_refused(readable_by_all: Path, script: str) -> None:
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    completed = execute(*as_user, readable_by_all / script, XDG_CACHE_HOME="/no-such-folder")
    assert_refused(completed, "needs root", "sudo")


def test_missing_go_names_the_group_and_the_download(run: Run, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for command in Path(folder).iterdir():
            if command.name != "go" and not (commands / command.name).exists():
                (commands / command.name).symlink_to(command)
    assert_refused(run("build", "s3", PATH=str(commands)), "no Go", "(s3)", "https://go.dev/dl")


@pytest.mark.parametrize(
    "version", ["go version go1.19.8 linux/amd64", "go: no such tool", "go version go1.24.1 linux/amd64"]
)
def test_an_old_go_is_refused_before_building(run: Run, path_with: PathWith, version: str) -> None:
    path = path_with("go", f"[ $1 = version ] && echo '{version}'")
    assert_refused(run("build", "s3", PATH=path), "is too old", "s3 needs Go 1.2", "https://go.dev/dl")


def test_the_toolchain_of_the_group_counts_not_the_installed_go(run_part: Run, path_with: PathWith) -> None:
    path = path_with("go", "[ -e go.mod ] && echo go version go1.99.0 || echo go version go1.21.0")
    assert run_part("need_go s3", PATH=path).returncode == 0


def test_built_programs_need_no_go(run_part: Run, path_with: PathWith) -> None:
    built = Path(run_part("program_bin s3").stdout.strip())
    built.mkdir(parents=True)
    assert run_part("need_go s3", PATH=path_with("go", "echo go version go1.2.3")).returncode == 0


def test_up_checks_prerequisites_before_building() -> None:
    steps = (NODE / "up").read_text().split("trap ", 1)[1].split("build_group", 1)[0]
    for step in ("need_disk", "need_namespaces_and_overlayfs", "need_own_cgroup", "need_free_network", "need_go"):
        assert f"\n{step}" in steps


@pytest.mark.parametrize("folder", ["/var/lib/ci/cache", "/var/log", "/run/user/0"])
def test_a_cache_hidden_by_the_nodes_mounts_is_refused(run_part: Run, folder: str) -> None:
    assert_refused(run_part("need_visible_cache", XDG_CACHE_HOME=folder), folder, "XDG_CACHE_HOME")


def test_a_full_disk_names_free_and_required_space(run_part: Run, path_with: PathWith, cache: Path) -> None:
    path = path_with("df", "printf ' Avail\\n29999999999\\n'")
    assert_refused(run_part("need_disk", PATH=path), "29 GB are free", str(cache), "30 GB", "--purge")


def test_with_the_worker_image_less_disk_suffices(run_part: Run, path_with: PathWith, cache: Path) -> None:
    repositories = cache / "ddpm-ray/node/lib/registry/docker/registry/v2/repositories"
    (repositories / "node/busybox/_manifests/tags/1").mkdir(parents=True)
    assert_refused(run_part("need_disk", PATH=path_with("df", "printf ' Avail\\n5000000000\\n'")), "30 GB")
    (repositories / "ddpm-ray-worker/_manifests/tags/cpu-0123456789ab").mkdir(parents=True)
    assert run_part("need_disk", PATH=path_with("df", "printf ' Avail\\n5000000000\\n'")).returncode == 0
    assert_refused(run_part("need_disk", PATH=path_with("df", "printf ' Avail\\n4999999999\\n'")), "5 GB")


def test_addresses_in_use_are_named(run_part: Run, path_with: PathWith) -> None:
    path = path_with("ip", "echo '198.18.4.0/24 via 10.0.0.7 dev vpn0'")
    assert_refused(run_part("need_free_network", PATH=path), "198.18.4.0/24", "vpn0", "settings.sh")


def test_the_nodes_own_route_is_accepted(run_part: Run, path_with: PathWith) -> None:
    path = path_with("ip", "echo '198.18.0.0/16 via 198.18.0.2 dev ddpm-ray '")
    assert run_part("need_free_network", PATH=path).returncode == 0


def test_forbidden_namespaces_are_named(run_part: Run, path_with: PathWith) -> None:
    path = path_with("unshare", "exit 1")
    assert_refused(run_part("need_namespaces_and_overlayfs", PATH=path), "may not create namespaces")


def test_missing_overlayfs_is_named(run_part: Run, path_with: PathWith, cache: Path) -> None:
    (cache / "ddpm-ray" / "node").mkdir(parents=True)
    path = path_with("unshare", 'case "$*" in *overlay*) exit 1 ;; esac')
    assert_refused(run_part("need_namespaces_and_overlayfs", PATH=path), "no overlayfs", "modprobe overlay")


def test_missing_veth_is_named(run_part: Run, path_with: PathWith) -> None:
    path = path_with("unshare", 'case "$*" in *veth*) exit 1 ;; esac')
    assert_refused(run_part("need_namespaces_and_overlayfs", PATH=path), "veth", "modprobe veth")


def test_read_only_cgroups_are_named(run_part: Run, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    roots = f"cgroup_roots() {{ echo {tmp_path}/a-file; }};"
    assert_refused(run_part(f"{roots} need_own_cgroup"), f"{tmp_path}/a-file", "--privileged")


def test_the_cgroup_check_leaves_nothing_behind(run_part: Run, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    assert run_part(f"cgroup_roots() {{ echo {tmp_path}/root; }}; need_own_cgroup").returncode == 0
    assert list((tmp_path / "root").iterdir()) == []
