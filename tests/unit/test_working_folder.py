"""No command imports a module from the folder it is started in, here or in a pod.

The workers of a local Ray are tested in `tests/ray/driver/test_surroundings.py`, the reader of ``.pt`` files with the
other checkpoints.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.planted import imported, plant_modules

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "tests" / "unit" / "operator" / "manifests" / "golden"
WITH_COMMANDS = ("operator/ddpm_operator", "inference/ddpm_inference", "charts", "templates")
# Exit codes: 0 success, 1 the operator without its settings, 2 usage.
COMMANDS = {
    ("ddpm-sample", "--n_samples", "0"): 2,
    ("kubectl-ddpm", "--help"): 0,
    ("ddpm-operator",): 1,
    ("python", "-P", "-m", "ddpm_operator.helm_test"): 2,
    ("python", "-P", "-m", "ddpm_inference.stop"): 0,
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_of_the_working_folder_is_imported(command: tuple[str, ...], tmp_path: Path) -> None:
    marks = plant_modules(tmp_path)
    program = Path(sys.executable).with_name(command[0])
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    ended = subprocess.run(
        [program, *command[1:]], cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False
    )
    assert imported(marks) == []
    assert ended.returncode == COMMANDS[command], ended.stderr


def test_python_in_pods_is_started_without_its_working_folder() -> None:
    starts = [
        (path.name, second)
        for folder in WITH_COMMANDS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".j2"}
        for second in re.findall(r"\[\"?python3?\"?, *\"?([^\",\]]+)", path.read_text())
    ]
    assert len(starts) >= 5
    assert {second for _, second in starts} == {"-P"}, starts


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_pods_of_a_cluster_exclude_the_working_folder_of_any_image(path: Path) -> None:
    [spec] = [it["spec"] for it in yaml.safe_load_all(path.read_text()) if it["kind"] == "RayCluster"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        for container in group["template"]["spec"]["containers"]:
            assert {"name": "PYTHONSAFEPATH", "value": "1"} in container["env"]


@pytest.mark.parametrize("image", ["worker", "operator"])
def test_images_exclude_it_too(image: str) -> None:
    assert re.search(r"^ENV [^#]*\bPYTHONSAFEPATH=1\b", (ROOT / f"Dockerfile.{image}").read_text(), re.MULTILINE)
