"""What the scripts of tests/node say when they cannot go on: what, why, what to do; and exit 2."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .conftest import NODE, Run, Said, execute

PathWith = Callable[[str, str], str]


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
    assert_refused(run(script, *arguments), f"usage: tests/node/{script}")


def test_an_unknown_group_of_programs_is_answered_with_the_known_ones(run: Run) -> None:
    assert_refused(run("build", "s4"), "'s4'", "coredns govulncheck helm kuberay kubernetes")


@pytest.mark.parametrize("script", ["kubeconfig", "s3", "kuberay", "kueue"])
def test_without_a_node_the_way_to_one_is_named(run: Run, script: str) -> None:
    assert_refused(run(script), "no node is up", "tests/node/up")


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


@pytest.mark.parametrize("folder", ["/var/lib/ci/cache", "/var/log", "/run/user/0"])
def test_a_cache_that_the_node_would_hide_from_itself_is_refused(run_part: Run, folder: str) -> None:
    assert_refused(run_part("need_visible_cache", XDG_CACHE_HOME=folder), folder, "XDG_CACHE_HOME")


def test_a_full_disk_is_refused_with_how_much_there_is_and_how_much_is_needed(
    run_part: Run, path_with: PathWith, cache: Path
) -> None:
    path = path_with("df", "printf ' Avail\\n29999999999\\n'")
    assert_refused(run_part("need_disk", PATH=path), "29 GB are free", str(cache), "30 GB", "--purge")


def test_once_images_are_there_less_disk_is_enough(run_part: Run, path_with: PathWith, cache: Path) -> None:
    (cache / "ddpm-ray/node/lib/registry/docker").mkdir(parents=True)
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
