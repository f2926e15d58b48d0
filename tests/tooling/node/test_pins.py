"""The node's programs: their pins agree with each other, and what is built is found by its pins."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from .conftest import NODE, Run

PROGRAMS = NODE / "programs"
GROUPS = sorted(path.parent.name for path in PROGRAMS.glob("*/go.mod"))


def go_mod(group: str) -> str:
    return (PROGRAMS / group / "go.mod").read_text()


def required(group: str) -> dict[str, str]:
    """Module and version, of every module that the group is built from."""
    return dict(re.findall(r"^(?:\t|require )(\S+) (v\S+)(?: // indirect)?$", go_mod(group), re.MULTILINE))


def tools(group: str) -> list[str]:
    return re.findall(r"^(?:tool |\t)([\w./-]+)$", go_mod(group), re.MULTILINE)


def taken_from_outside(group: str) -> list[str]:
    """The tools of a group, and of one that is written here what it imports beside Go's own library."""
    written_here = (PROGRAMS / group / "main.go").exists()
    imported = re.findall(r'"([\w-]+\.[\w./-]+)"', (PROGRAMS / group / "main.go").read_text()) if written_here else []
    return [tool for tool in tools(group) if not tool.startswith("ddpm-ray/")] + imported


@pytest.mark.parametrize("group", GROUPS)
def test_every_tool_of_a_group_is_of_a_module_that_is_pinned_with_its_hash(group: str) -> None:
    modules = required(group)
    hashed = (PROGRAMS / group / "go.sum").read_text()
    taken = taken_from_outside(group)
    assert taken
    for tool in taken:
        module = next(module for module in modules if tool == module or tool.startswith(f"{module}/"))
        assert f"{module} {modules[module]} h1:" in hashed


def test_what_the_node_is_made_of_is_built() -> None:
    names = {tool.rsplit("/", 1)[-1] for group in GROUPS for tool in tools(group)}
    assert names >= {
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    }
    assert names >= {"coredns", "local-path-provisioner", "registry", "versitygw", "ray-operator", "helm", "kwok"}


def test_every_staging_module_is_replaced_by_the_tag_of_kubernetes_own_version() -> None:
    version = required("kubernetes")["k8s.io/kubernetes"]
    replaced = re.findall(r"^\tk8s.io/([\w-]+) => k8s.io/([\w-]+) (v\S+)$", go_mod("kubernetes"), re.MULTILINE)
    assert replaced
    assert {(new, tag) for _, new, tag in replaced} == {(old, version.replace("v1.", "v0.")) for old, _, _ in replaced}


def test_the_provisioner_shares_its_libraries_with_kubernetes() -> None:
    kubernetes = required("kubernetes")
    shared = {module: version for module, version in required("local-path-provisioner").items() if module in kubernetes}
    assert shared
    assert shared == {module: kubernetes[module] for module in shared}


def test_a_changed_pin_is_built_beside_the_old_one(run_part: Run, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    shutil.copytree(PROGRAMS / "s3", programs / "s3")

    def folder() -> str:
        said = run_part(f"programs_dir={programs}; program_bin s3")
        return said.stdout.strip()

    before = folder()
    assert before == run_part("program_bin s3").stdout.strip()
    (programs / "s3" / "go.sum").write_text("")
    assert folder() != before


def test_what_is_built_is_not_built_again(run: Run, run_part: Run) -> None:
    built = Path(run_part("program_bin s3").stdout.strip())
    built.mkdir(parents=True)
    said = run("build", "s3")
    assert (said.returncode, said.stdout, said.stderr) == (0, f"{built}\n", "")
