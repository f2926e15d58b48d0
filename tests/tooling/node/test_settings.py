"""What the node's files may be read by, and whom proxies are not asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import PathWith, Run


def test_whoever_is_not_root_reads_no_key_of_the_node(run_part: Run, cache: Path) -> None:
    said = run_part("umask 022; make_pki")
    assert said.returncode == 0, said.stderr
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
def test_no_proxy_is_asked_for_the_node_and_none_is_forgotten(
    run_part: Run, given: dict[str, str], upper: str, lower: str
) -> None:
    node = "198.18.0.0/16,198.18.0.2,.svc"
    environment = {"NO_PROXY": "", "no_proxy": ""} | {key: it.replace("NODE", node) for key, it in given.items()}
    said = run_part('echo "$NO_PROXY $no_proxy"', **environment).stdout.split()
    assert said == [upper.replace("NODE", node), lower.replace("NODE", node)]


def test_a_fresh_machine_that_has_no_package_lists_fetches_them(
    run_part: Run, path_with: PathWith, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    fails_first = f'echo $1 >>{said}; [ $1 = update ] || [ "$(grep -c . {said})" -gt 1 ]'
    path_with(
        "dpkg-deb",
        'mkdir -p "$3/bin"; printf "#!/bin/sh\\necho ls\\n" >"$3/bin/busybox"; chmod +x "$3/bin/busybox"',
    )
    path = path_with("apt-get", fails_first)
    made = run_part('push_image() { ls "$2/root/bin"; }; mkdir -p "$state/log"; make_tools_image', PATH=path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["busybox", "ls"]
    assert said.read_text().split() == ["download", "update", "download"]
