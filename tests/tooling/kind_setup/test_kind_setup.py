"""kind-setup.sh on simulated machines: which commands it runs, what it prints, when it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tooling.kind_setup.machine import Machine, Ran

CHART = "helm upgrade --install ddpm-ray charts/ddpm-ray"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a Docker engine and all tools, without a cluster."""
    return Machine.in_folder(tmp_path)


def order(ran: Ran, *prefixes: str) -> list[str]:
    """Returns the prefixes of the calls that start with one, in the order of the calls."""
    return [prefix for call in ran.calls for prefix in prefixes if call.startswith(prefix)]


def test_first_run_creates_everything_in_order(machine: Machine) -> None:
    ran = machine.setup()
    assert ran.code == 0, ran.stderr
    steps = ["kind create", "docker run", "helm upgrade", "docker build", "docker push"]
    assert order(ran, *steps) == [*steps, "docker build", "docker push", "helm upgrade"]
    assert order(ran, "kubectl create -f -", CHART) == ["kubectl create -f -", CHART]
    assert ran.called("kind create cluster --name ddpm-ray")
    assert ran.called("docker run", "--publish 127.0.0.1:5001:5000", "--network kind")
    assert ran.called("helm upgrade --install kuberay-operator", "--version 1.6.1")
    assert ran.called(
        "docker exec ddpm-ray-control-plane ctr", "images pull", "ddpm-ray-registry:5000/ddpm-ray-worker:"
    )
    for half in ("worker", "operator"):
        assert ran.called("images tag", f"docker.io/library/ddpm-ray-{half}:dev")
        assert ran.called("images tag", f"docker.io/library/ddpm-ray-{half}@sha256:5b3b")


def test_steps_print_durations_and_next_commands_come_last(machine: Machine) -> None:
    ran = machine.setup()
    steps = re.findall(r"^(?:setup|images): (.+): \d+\.\d s$", ran.stderr, re.MULTILINE)
    assert len(steps) >= 11, ran.stderr
    commands = [line.split()[0] for line in ran.stdout.splitlines() if line.startswith("  ")]
    assert len(commands) == 3
    assert ran.stdout.rstrip().splitlines()[-1].startswith("  ")


def test_second_run_creates_nothing(machine: Machine) -> None:
    machine.setup()
    remaining = machine.remaining()
    ran = machine.setup()
    assert ran.code == 0, ran.stderr
    assert order(ran, "kind create", "docker run", "docker build", "docker push", "docker rm") == []
    assert machine.remaining() == remaining


def test_changed_code_is_rebuilt_and_pushed(machine: Machine) -> None:
    machine.setup()
    machine.write("inference/ddpm_inference/driver.py", "changed\n")
    ran = machine.setup()
    assert order(ran, "docker build", "docker push") == ["docker build", "docker push"]
    assert ran.called("docker build", "Dockerfile.worker")


def test_changed_templates_rebuild_the_operator_only(machine: Machine) -> None:
    machine.setup()
    machine.write("templates/pod.yaml.j2", "changed\n")
    ran = machine.setup()
    assert order(ran, "docker build") == ["docker build"]
    assert ran.called("docker build", "Dockerfile.operator")


def test_older_images_are_removed_from_the_engine(machine: Machine) -> None:
    machine.setup(DEVICE="cuda")
    machine.setup()
    machine.write("inference/ddpm_inference/driver.py", "changed\n")
    machine.setup()
    machine.write("operator/ddpm_operator/main.py", "changed\n")
    machine.setup()
    built = [re.sub(r"[0-9a-f]{12}$", "", name) for name in machine.images()]
    assert sorted(built) == ["ddpm-ray-operator:", "ddpm-ray-worker:cpu-", "ddpm-ray-worker:cuda-"]


def test_unused_images_leave_the_node_after_the_upgrade(
    machine: Machine,
) -> None:
    machine.setup()
    used, unused = sorted(name for name in machine.node_images() if not name.endswith(":dev"))
    machine.set_objects(f"image: {used}\n")
    machine.write("inference/ddpm_inference/driver.py", "changed\n")
    machine.write("operator/ddpm_operator/main.py", "changed\n")
    ran = machine.setup()
    assert ran.code == 0, ran.stderr
    assert used in machine.node_images()
    assert unused not in machine.node_images()
    assert len(machine.node_images()) == 5  # two new ones, two called dev, and the one in use
    removal = next(call for call in ran.calls if "images rm" in call and unused in call)
    chart = next(call for call in ran.calls if call.startswith(CHART))
    assert ran.calls.index(removal) > ran.calls.index(chart)


def test_images_of_another_device_stay_on_the_node(machine: Machine) -> None:
    machine.setup(DEVICE="cuda")
    cuda = {name for name in machine.node_images() if ":cuda-" in name}
    machine.setup()
    assert cuda
    assert cuda <= machine.node_images()


@pytest.mark.parametrize(
    ("file", "changed"),
    [("hack/images/lib/base.sh", "# Debian's next\n"), ("requirements/worker.txt", "# a lock that changed\n")],
)
def test_base_and_lock_change_the_tag(machine: Machine, file: str, changed: str) -> None:
    before = machine.run("hack/images/build", "worker", "--to", "nowhere").stdout
    path = machine.tree / file
    path.write_text(path.read_text() + changed)
    assert machine.run("hack/images/build", "worker", "--to", "nowhere").stdout != before


def test_torch_index_changes_the_worker_tag_only(machine: Machine) -> None:
    def tags(half: str) -> set[str]:
        build = ("hack/images/build", half, "--to", "nowhere")
        other = {"TORCH_INDEX": "https://torch.example/cpu"}
        return {machine.run(*build).stdout, machine.run(*build, **other).stdout}

    assert len(tags("worker")) == 2
    assert len(tags("operator")) == 1


def test_files_outside_the_images_rebuild_nothing(machine: Machine) -> None:
    machine.setup()
    machine.write("inference/ddpm_inference/__pycache__/driver.cpython-311.pyc", "compiled\n")
    machine.write("README.md", "new words\n")
    assert not machine.setup().called("docker build")


def test_a_stopped_registry_is_started(machine: Machine) -> None:
    machine.setup()
    machine.stop_container("ddpm-ray-registry")
    assert machine.setup().called("docker run", "--name ddpm-ray-registry")


def test_skip_images_builds_and_pushes_none(machine: Machine) -> None:
    ran = machine.setup("--skip-images")
    assert ran.code == 0, ran.stderr
    assert order(ran, "docker build", "docker push") == []
    assert ran.called("kind create")


def test_delete_removes_everything_and_is_idempotent(machine: Machine) -> None:
    machine.setup()
    for _ in range(2):
        assert machine.setup("--delete").code == 0
        assert machine.remaining() == set()
    assert machine.setup().called("kind create")


def test_the_chart_uses_the_pushed_images(machine: Machine) -> None:
    ran = machine.setup()
    pushed = {name.partition(":")[0]: name for name in machine.images()}
    values = f"worker.image={pushed['ddpm-ray-worker']},image.name={pushed['ddpm-ray-operator']}"
    assert ran.called(CHART, "--wait", f"--set-string {values}")


def test_skip_images_keeps_the_chart_values_and_does_not_wait(machine: Machine) -> None:
    ran = machine.setup("--skip-images")
    assert ran.called(CHART, "--reset-then-reuse-values")
    assert not ran.called(CHART, "--wait")


def test_an_existing_crd_is_taken_over(machine: Machine) -> None:
    assert machine.setup().called(CHART, "--take-ownership")


def test_the_node_is_used_without_a_docker_engine(machine: Machine) -> None:
    machine.stop_docker()
    ran = machine.setup(BASE_IMAGE="a-base")
    assert ran.code == 0, ran.stderr
    assert "provider: node" in ran.stderr
    assert order(ran, "up", "kuberay", "enter ctr", "kind", "helm")[:3] == ["up", "kuberay", "enter ctr"]
    for image in ("ddpm-ray-worker:cpu-", "ddpm-ray-operator:"):
        assert ran.called("podman", "push", f"198.51.100.2:5000/{image}")
        assert ran.called("enter ctr", "images pull", f"198.51.100.2:5000/{image}")
        assert ran.called("enter ctr", "images tag", f"docker.io/library/{image.partition(':')[0]}@sha256:5b3b")
    assert f"export KUBECONFIG={machine.folder}/kubeconfig" in ran.stdout


def test_delete_stops_the_node(machine: Machine) -> None:
    ran = machine.setup("--provider", "node", "--delete")
    assert ran.code == 0
    assert order(ran, "down", "up", "kind") == ["down"]


def test_node_images_are_built_by_podman_even_with_docker(machine: Machine) -> None:
    ran = machine.setup("--provider", "node", BASE_IMAGE="a-base")
    assert ran.code == 0, ran.stderr
    assert ran.called("podman", "push", "198.51.100.2:5000/ddpm-ray-worker:cpu-")
    assert order(ran, "docker build", "docker push", "docker tag") == []


def test_podman_runs_in_its_own_mount_namespace(machine: Machine) -> None:
    ran = machine.setup("--provider", "node", BASE_IMAGE="a-base")
    podman_calls = [call for call in ran.calls if call.startswith("podman")]
    assert podman_calls
    assert [f"unshare --mount {call}" for call in podman_calls] == [
        call for call in ran.calls if call.startswith("unshare")
    ]


def test_the_node_is_reached_without_a_proxy(machine: Machine) -> None:
    ran = machine.setup(
        "--provider", "node", BASE_IMAGE="a-base", HTTPS_PROXY="http://proxy.example:3128", NO_PROXY="corp.example"
    )
    no_proxy = (machine.folder / "state/podman's NO_PROXY").read_text().strip()
    assert no_proxy == "corp.example,198.18.0.0/16,198.18.0.2,.svc"
    assert f"NO_PROXY={no_proxy}" in ran.stdout
    assert "NO_PROXY" not in machine.setup("--provider", "node", BASE_IMAGE="a-base").stdout


@pytest.mark.parametrize("tool", ["kind", "kubectl", "helm"])
def test_a_missing_tool_is_named_with_its_url(machine: Machine, tool: str) -> None:
    machine.remove_tool(tool)
    ran = machine.setup()
    assert ran.code == 2
    assert f"{tool} is not installed" in ran.stderr
    assert "https://" in ran.stderr
    assert not ran.called("kind create")


@pytest.mark.parametrize(
    ("tool", "old", "min_version"),
    [
        ("docker", "20.10.7", "23.0"),
        ("kind", "kind v0.9.0 go1.15", "0.24"),
        ("kubectl", "Client Version: v1.9.1", "1.30"),
        ("helm", "v3.9.4", "3.17"),
    ],
)
def test_an_old_tool_is_refused_with_the_required_version(
    machine: Machine, tool: str, old: str, min_version: str
) -> None:
    machine.set_version(tool, old)
    ran = machine.setup()
    assert ran.code == 2
    assert re.search(rf"{tool} [\d.]+ is too old", ran.stderr)
    assert f"{tool} {min_version} or newer" in ran.stderr
    assert not ran.called("kind create")


def test_kind_without_a_docker_engine_is_refused(machine: Machine) -> None:
    machine.stop_docker()
    ran = machine.setup("--provider", "kind")
    assert ran.code == 2
    assert "no Docker engine responds" in ran.stderr
    assert "--provider node" in ran.stderr


@pytest.mark.parametrize(
    ("failing", "step", "never"),
    [
        ("kind create*", "created the cluster", "helm upgrade"),
        ("helm upgrade*", "installed KubeRay 1.6.1", "docker build"),
        ("docker build*", "built ddpm-ray-worker:", "docker push"),
        ("docker push*", "pushed the layers", "images pull"),
        (f"{CHART}*", "the operator is ready", "nothing comes after it"),
    ],
)
def test_a_failed_step_is_named_and_ends_the_script(machine: Machine, failing: str, step: str, never: str) -> None:
    machine.fail_calls(failing)
    ran = machine.setup()
    assert ran.code not in (0, 2)
    assert re.search(rf"{re.escape(step)}.*: failed \(exit \d+\)", ran.stderr), ran.stderr
    assert "shim: made to fail" in ran.stderr
    assert not ran.called(never)
    assert ran.stdout == ""

    machine.fail_calls("")
    assert machine.setup().code == 0


def test_an_existing_cluster_needs_a_registry_or_skip_images(machine: Machine) -> None:
    ran = machine.setup("--provider", "existing")
    assert ran.code == 2
    assert "REGISTRY=" in ran.stderr
    assert "--skip-images" in ran.stderr
    assert machine.setup("--provider", "existing", "--skip-images").code == 0


def test_images_of_an_existing_cluster_go_to_its_registry(machine: Machine) -> None:
    ran = machine.setup("--provider=existing", REGISTRY="registry.example/team")
    assert ran.code == 0, ran.stderr
    assert ran.called("docker push", "registry.example/team/ddpm-ray-worker:cpu-")
    assert ran.called(CHART, "image.name=registry.example/team/ddpm-ray-operator:")
    assert not ran.called("kind")


def test_a_foreign_kuberay_is_not_changed(machine: Machine) -> None:
    machine.install_foreign_kuberay()
    ran = machine.setup("--provider", "existing", "--skip-images")
    assert not ran.called("helm upgrade", "kuberay")
    assert ran.called(CHART)


def test_delete_uninstalls_both_releases_of_an_existing_cluster(machine: Machine) -> None:
    machine.setup("--provider", "existing", "--skip-images")
    ran = machine.setup("--provider", "existing", "--delete")
    assert ran.code == 0
    assert machine.remaining() == set()
    assert order(ran, "kind", "docker rm") == []


def test_delete_is_refused_while_samplings_are_active(machine: Machine) -> None:
    machine.install_foreign_kuberay()
    machine.setup("--provider", "existing", "--skip-images")
    (machine.folder / "active").write_text("team-a   digits-x7k2p\n")
    ran = machine.setup("--provider", "existing", "--delete")
    assert ran.code == 2
    assert "team-a/digits-x7k2p" in ran.stderr
    assert "kubectl delete ddpm" in ran.stderr
    assert not ran.called("helm uninstall")
    (machine.folder / "active").unlink()
    assert machine.setup("--provider", "existing", "--delete").code == 0


@pytest.mark.parametrize("arguments", [["--provider", "swarm"], ["--provider"], ["--force"]])
def test_bad_usage_is_refused(machine: Machine, arguments: list[str]) -> None:
    ran = machine.setup(*arguments)
    assert ran.code == 2
    assert ran.stdout == ""
    assert not ran.called("kind create")


def test_help_runs_no_command(machine: Machine) -> None:
    ran = machine.setup("--help")
    assert ran.code == 0
    for flag in ("--provider", "--delete", "--skip-images"):
        assert flag in ran.stdout
    assert ran.calls == []
