"""What the scripts of hack/node say when they cannot go on: what, why, what to do; and exit 2."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .conftest import NODE, PathWith, Run, Said, execute


def assert_refused(said: Said, *words: str) -> None:
    assert said.returncode == 2
    assert said.stdout == ""
    for word in words:
        assert word in said.stderr


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
def test_wrong_arguments_are_answered_with_the_usage(run: Run, script: str, arguments: list[str]) -> None:
    assert_refused(run(script, *arguments), f"usage: hack/node/{script}")


def test_an_unknown_group_of_programs_is_answered_with_the_known_ones(run: Run) -> None:
    assert_refused(run("build", "s4"), "'s4'", "coredns govulncheck helm kuberay kubernetes")


@pytest.mark.parametrize("script", ["kubeconfig", "s3", "kuberay", "kueue"])
def test_without_a_node_the_way_to_one_is_named(run: Run, script: str) -> None:
    assert_refused(run(script), "no node is up", "hack/node/up")


def test_a_process_that_has_got_a_dead_nodes_number_is_not_taken_for_it(run: Run, cache: Path) -> None:
    state = cache / "ddpm-ray" / "node"
    state.mkdir(parents=True)
    (state / "init.pid").write_text(f"{os.getpid()}\n")
    assert_refused(run("kubeconfig"), "no node is up")


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    """A copy of the scripts that any user may run."""
    with TemporaryDirectory() as folder:
        for part in ("node", "images"):
            shutil.copytree(NODE.parent / part, Path(folder) / part)
        Path(folder).chmod(0o755)
        yield Path(folder) / "node"


@pytest.mark.parametrize("script", ["up", "down", "enter"])
def test_an_ordinary_user_is_told_that_it_needs_root(readable_by_all: Path, script: str) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    said = execute(*as_nobody, readable_by_all / script, XDG_CACHE_HOME="/nowhere")
    assert_refused(said, "needs root", "sudo")


def test_without_go_the_group_and_where_to_get_go_are_named(run: Run, tmp_path: Path) -> None:
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
def test_a_go_that_is_too_old_for_the_pins_is_refused_before_anything_is_built(
    run: Run, path_with: PathWith, version: str
) -> None:
    path = path_with("go", f"[ $1 = version ] && echo '{version}'")
    assert_refused(run("build", "s3", PATH=path), "is too old", "s3 needs Go 1.2", "https://go.dev/dl")


def test_the_go_that_would_build_is_asked_for_and_not_the_one_that_fetches_it(
    run_part: Run, path_with: PathWith
) -> None:
    path = path_with("go", "[ -e go.mod ] && echo go version go1.99.0 || echo go version go1.21.0")
    assert run_part("need_go s3", PATH=path).returncode == 0


def test_what_is_built_needs_no_go(run_part: Run, path_with: PathWith) -> None:
    built = Path(run_part("program_bin s3").stdout.strip())
    built.mkdir(parents=True)
    assert run_part("need_go s3", PATH=path_with("go", "echo go version go1.2.3")).returncode == 0


def test_all_that_can_be_refused_is_refused_before_minutes_of_building() -> None:
    steps = (NODE / "up").read_text().split("trap ", 1)[1].split("build_group", 1)[0]
    for step in ("need_disk", "need_namespaces_and_overlayfs", "need_own_cgroup", "need_free_network", "need_go"):
        assert f"\n{step}" in steps


@pytest.mark.parametrize("folder", ["/var/lib/ci/cache", "/var/log", "/run/user/0"])
def test_a_cache_that_the_node_would_hide_from_itself_is_refused(run_part: Run, folder: str) -> None:
    assert_refused(run_part("need_visible_cache", XDG_CACHE_HOME=folder), folder, "XDG_CACHE_HOME")


def test_a_full_disk_is_refused_with_how_much_there_is_and_how_much_is_needed(
    run_part: Run, path_with: PathWith, cache: Path
) -> None:
    path = path_with("df", "printf ' Avail\\n29999999999\\n'")
    assert_refused(run_part("need_disk", PATH=path), "29 GB are free", str(cache), "30 GB", "--purge")


def test_once_the_worker_image_is_there_less_disk_is_enough(run_part: Run, path_with: PathWith, cache: Path) -> None:
    repositories = cache / "ddpm-ray/node/lib/registry/docker/registry/v2/repositories"
    (repositories / "node/busybox/_manifests/tags/1").mkdir(parents=True)
    assert_refused(run_part("need_disk", PATH=path_with("df", "printf ' Avail\\n5000000000\\n'")), "30 GB")
    (repositories / "ddpm-ray-worker/_manifests/tags/cpu-0123456789ab").mkdir(parents=True)
    assert run_part("need_disk", PATH=path_with("df", "printf ' Avail\\n5000000000\\n'")).returncode == 0
    assert_refused(run_part("need_disk", PATH=path_with("df", "printf ' Avail\\n4999999999\\n'")), "5 GB")


def test_addresses_that_are_in_use_are_named(run_part: Run, path_with: PathWith) -> None:
    path = path_with("ip", "echo '198.18.4.0/24 via 10.0.0.7 dev vpn0'")
    assert_refused(run_part("need_free_network", PATH=path), "198.18.4.0/24", "vpn0", "settings.sh")


def test_the_way_to_the_node_itself_is_no_foreign_use_of_its_addresses(run_part: Run, path_with: PathWith) -> None:
    path = path_with("ip", "echo '198.18.0.0/16 via 198.18.0.2 dev ddpm-ray '")
    assert run_part("need_free_network", PATH=path).returncode == 0


def test_where_namespaces_are_forbidden_it_says_so(run_part: Run, path_with: PathWith) -> None:
    path = path_with("unshare", "exit 1")
    assert_refused(run_part("need_namespaces_and_overlayfs", PATH=path), "may not make namespaces")


def test_where_overlayfs_is_missing_the_kind_of_file_system_is_named(
    run_part: Run, path_with: PathWith, cache: Path
) -> None:
    (cache / "ddpm-ray" / "node").mkdir(parents=True)
    path = path_with("unshare", 'case "$*" in *overlay*) exit 1 ;; esac')
    assert_refused(run_part("need_namespaces_and_overlayfs", PATH=path), "no overlayfs", "modprobe overlay")


def test_a_kernel_without_virtual_wires_is_named(run_part: Run, path_with: PathWith) -> None:
    path = path_with("unshare", 'case "$*" in *veth*) exit 1 ;; esac')
    assert_refused(run_part("need_namespaces_and_overlayfs", PATH=path), "veth", "modprobe veth")


def test_cgroups_that_cannot_be_made_are_refused_with_where(run_part: Run, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    roots = f"cgroup_roots() {{ echo {tmp_path}/a-file; }};"
    assert_refused(run_part(f"{roots} need_own_cgroup"), f"{tmp_path}/a-file", "--privileged")


def test_a_machine_where_cgroups_can_be_made_is_left_as_it_was(run_part: Run, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    assert run_part(f"cgroup_roots() {{ echo {tmp_path}/root; }}; need_own_cgroup").returncode == 0
    assert list((tmp_path / "root").iterdir()) == []
