"""A simulated machine for kind-setup.sh: a copy of the files that it needs, and shims that record its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SHIMS = Path(__file__).parent / "shims"
ENGINES = ("docker", "kind", "kubectl", "helm", "podman", "runc", "id", "unshare")
NODE_SCRIPTS = ("up", "down", "kubeconfig", "kuberay", "registry", "build", "enter")
VERSIONS = {
    "docker": "28.2.2",
    "kind": "kind v0.31.0 go1.25.5 linux/amd64",
    "kubectl": "Client Version: v1.34.4\nKustomize Version: v5.7.1",
    "helm": "v3.22.0",
}
# The only programs of the system on the machine's PATH.
SYSTEM = (
    *(
        "awk",
        "basename",
        "bash",
        "cat",
        "date",
        "dirname",
        "env",
        "find",
        "git",
        "grep",
        "head",
        "mkdir",
        "mktemp",
    ),
    *("python3", "rm", "sed", "sha256sum", "sort", "tail", "touch", "tr", "xargs"),
)


@dataclass(frozen=True)
class Ran:
    """The outcome of a script, and every call of a shim that it made."""

    code: int
    stdout: str
    stderr: str
    calls: list[str]

    def called(self, *words: str) -> bool:
        """Whether one call contains all these words, in any order."""
        return any(all(word in call for word in words) for call in self.calls)


@dataclass(frozen=True)
class Machine:
    """`folder` contains the tree, the programs on PATH, and the state of the shims."""

    folder: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Machine:
        machine = cls(folder)
        machine._copy_tree()
        (folder / "bin").mkdir()
        for name in SYSTEM:
            found = shutil.which(name)
            assert found, f"these tests need {name}"
            (folder / "bin" / name).symlink_to(found)
        for name in ENGINES:
            (folder / "bin" / name).symlink_to(SHIMS / name)
        (folder / "versions").mkdir()
        for name, version in VERSIONS.items():
            machine.set_version(name, version)
        return machine

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    def set_version(self, tool: str, version: str) -> None:
        (self.folder / "versions" / tool).write_text(version + "\n")

    def remove_tool(self, tool: str) -> None:
        (self.folder / "bin" / tool).unlink()

    def stop_docker(self) -> None:
        (self.folder / "docker_stopped").touch()

    def install_foreign_kuberay(self) -> None:
        (self.folder / "has_kuberay").touch()

    def set_objects(self, text: str) -> None:
        """Sets what kubectl prints as the objects of the cluster."""
        (self.folder / "objects").write_text(text)

    def node_images(self) -> set[str]:
        """Returns the images that pods can use, without those named by digest."""
        names = {path.name.removeprefix("on node ") for path in (self.folder / "state").glob("on node *")}
        return {name for name in names if "@" not in name}

    def fail_calls(self, pattern: str) -> None:
        """Makes calls that match this shell pattern fail from now on; none, if it is empty."""
        (self.folder / "fails").write_text(pattern)

    def stop_container(self, container: str) -> None:
        (self.folder / "state" / f"container {container}").unlink()

    def remaining(self) -> set[str]:
        """Returns the clusters, containers, releases and images on nodes; not the images of the engine."""
        return {path.name for path in (self.folder / "state").iterdir() if not path.name.startswith("image ")}

    def images(self) -> list[str]:
        """Returns the images of the engine."""
        return [path.name.removeprefix("image ") for path in (self.folder / "state").glob("image *")]

    def setup(self, *arguments: str, **environment: str) -> Ran:
        return self.run("kind-setup.sh", *arguments, **environment)

    def run(self, script: str, *arguments: str, **environment: str) -> Ran:
        calls = self.folder / "calls"
        calls.write_text("")
        done = subprocess.run(
            [self.tree / script, *arguments],
            env={
                "PATH": str(self.folder / "bin"),
                "HOME": str(self.folder),
                "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
                "MACHINE": str(self.folder),
                "SHIMS": str(SHIMS),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr, calls.read_text().splitlines())

    def _copy_tree(self) -> None:
        for name in (
            "kind-setup.sh",
            "hack/images",
            "hack/node/programs/kuberay",
            "hack/node/lib",
            "Dockerfile.worker",
            "Dockerfile.operator",
            ".dockerignore",
            "charts/ddpm-ray/Chart.yaml",
        ):
            source, target = ROOT / name, self.tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
        for name in ("bootstrap", "dev", "worker", "operator"):
            self.write(f"requirements/{name}.txt", "# a lock\n")
        for project in ("inference", "operator"):
            self.write(f"{project}/pyproject.toml", 'version = "0.1.0"\n')
        self.write("models/mnist.safetensors", "weights")
        self.write("templates/pod.yaml.j2", "# a template\n")
        for name in NODE_SCRIPTS:
            (self.tree / "hack/node" / name).symlink_to(SHIMS / "node")

    def write(self, name: str, text: str) -> None:
        """Writes a file of the tree."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
