"""`kubectl ddpm` against the API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.kube import Namespace

PLUGIN = Path(sys.executable).with_name("kubectl-ddpm")
DIGITS = ("digits", "--model_path", "builtin://mnist", "--sampler", "dpmpp")


def ddpm(namespace: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = namespace.cluster.kubeconfig
    environment = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    command = [PLUGIN, *arguments, "-n", namespace.name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_same_command_again_changes_nothing_and_with_more_samples_it_grows(namespace: Namespace) -> None:
    was = []
    for samples in ("16", "16", "32", "8"):
        done = ddpm(namespace, "submit", *DIGITS, "--n_samples", samples, "--gpus", "1000", "--json")
        was.append(json.loads(done.stdout)["was"] if done.stdout else (done.returncode, done.stderr))
    assert was[:3] == ["created", "unchanged", "changed"]
    assert was[3][0] == 2
    assert "samples can only grow" in was[3][1]
    listed = ddpm(namespace, "list", "--json")
    assert json.loads(listed.stdout)["spec"]["samples"] == 32
    gone = ddpm(namespace, "delete", "digits")
    assert gone.stdout == "digits deleted; its samples stay at pvc://digits-output\n"
    assert ddpm(namespace, "status", "digits").returncode == 2


def test_what_is_not_there_is_named(namespace: Namespace) -> None:
    for command in (("status", "no"), ("watch", "no"), ("logs", "no"), ("fetch", "no", "."), ("delete", "no")):
        done = ddpm(namespace, *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"there is no DDPMSampling no in the namespace {namespace.name}" in done.stderr
