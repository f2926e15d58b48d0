"""The modes of the node's keys, its NO_PROXY, and the download of its tools image."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import PathWith, Run


def test_only_root_can_read_the_nodes_keys(run_part: Run, cache: Path) -> None:
    completed = run_part("umask 022; make_pki")
    assert completed.returncode == 0, completed.stderr
    state = cache / "ddpm-ray/node"
    secret = [
        *state.glob("lib/kubernetes/*.key"),
        *state.glob("lib/kubernetes/*.kubeconfig"),
        state / "kubeconfig",
    ]
    assert len(secret) == 14
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}


@pytest.mark.parametrize(
    ("given", "upper", "lower"),
    [
        ({}, "NODE", "NODE"),
        ({"NO_PROXY": "a"}, "a,NODE", "a,NODE"),
        ({"no_proxy": "b"}, "b,NODE", "b,NODE"),
        ({"NO_PROXY": "a", "no_proxy": "b"}, "a,NODE", "b,NODE"),
        ({"NO_PROXY": "a,NODE", "no_proxy": "b,NODE"}, "a,NODE", "b,NODE"),
    ],
)
def test_no_proxy_contains_the_node_and_given_values(
    run_part: Run, given: dict[str, str], upper: str, lower: str
) -> None:
    node = "198.18.0.0/16,198.18.0.2,.svc"
    environment = {"NO_PROXY": "", "no_proxy": ""} | {key: it.replace("NODE", node) for key, it in given.items()}
    values = run_part('echo "$NO_PROXY $no_proxy"', **environment).stdout.split()
    assert values == [upper.replace("NODE", node), lower.replace("NODE", node)]


def test_missing_package_lists_are_fetched(run_part: Run, path_with: PathWith, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    fails_first = f'echo $1 >>{calls}; [ $1 = update ] || [ "$(grep -c . {calls})" -gt 1 ]'
    path_with(
        "dpkg-deb",
        'mkdir -p "$3/bin"; printf "#!/bin/sh\\necho ls\\n" >"$3/bin/busybox"; chmod +x "$3/bin/busybox"',
    )
    path = path_with("apt-get", fails_first)
    completed = run_part('push_image() { ls "$2/root/bin"; }; mkdir -p "$state/log"; make_tools_image', PATH=path)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.split() == ["busybox", "ls"]
    assert calls.read_text().split() == ["download", "update", "download"]
