"""The node's programs: their pinned versions agree, and built programs are found by the hash of their pins."""

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
    """Returns module -> version of every module that the group is built from."""
    return dict(re.findall(r"^(?:\t|require )(\S+) (v\S+)(?: // indirect)?$", go_mod(group), re.MULTILINE))


def tools(group: str) -> list[str]:
    return re.findall(r"^(?:tool |\t)([\w./-]+)$", go_mod(group), re.MULTILINE)


def external_packages(group: str) -> list[str]:
    """Returns the group's tools of other modules, and the external imports of its main.go, if it has one."""
    has_main = (PROGRAMS / group / "main.go").exists()
    imported = re.findall(r'"([\w-]+\.[\w./-]+)"', (PROGRAMS / group / "main.go").read_text()) if has_main else []
    return [tool for tool in tools(group) if not tool.startswith("ddpm-ray/")] + imported


@pytest.mark.parametrize("group", GROUPS)
def test_every_tool_is_pinned_with_a_hash(group: str) -> None:
    modules = required(group)
    hashed = (PROGRAMS / group / "go.sum").read_text()
    packages = external_packages(group)
    assert packages
    for tool in packages:
        module = next(module for module in modules if tool == module or tool.startswith(f"{module}/"))
        assert f"{module} {modules[module]} h1:" in hashed


def test_all_programs_of_the_node_are_built() -> None:
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


def test_staging_modules_have_the_version_of_kubernetes() -> None:
    version = required("kubernetes")["k8s.io/kubernetes"]
    replaced = re.findall(r"^\tk8s.io/([\w-]+) => k8s.io/([\w-]+) (v\S+)$", go_mod("kubernetes"), re.MULTILINE)
    assert replaced
    assert {(new, tag) for _, new, tag in replaced} == {(old, version.replace("v1.", "v0.")) for old, _, _ in replaced}


def test_the_provisioner_has_the_libraries_of_kubernetes() -> None:
    kubernetes = required("kubernetes")
    shared = {module: version for module, version in required("local-path-provisioner").items() if module in kubernetes}
    assert shared
    assert shared == {module: kubernetes[module] for module in shared}


def test_a_changed_pin_changes_the_folder(run_part: Run, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    shutil.copytree(PROGRAMS / "s3", programs / "s3")

    def folder() -> str:
        return run_part(f"programs_dir={programs}; program_bin s3").stdout.strip()

    before = folder()
    assert before == run_part("program_bin s3").stdout.strip()
    (programs / "s3" / "go.sum").write_text("")
    assert folder() != before


def test_built_programs_are_not_rebuilt(run: Run, run_part: Run) -> None:
    built = Path(run_part("program_bin s3").stdout.strip())
    built.mkdir(parents=True)
    completed = run("build", "s3")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, f"{built}\n", "")
