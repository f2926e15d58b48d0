"""kind-setup.sh on machines that are not here: what it would run, what it says, when it stops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tooling.kind_setup.machine import Machine, Ran

CHART = "helm upgrade --install ddpm-ray charts/ddpm-ray"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a Docker engine and all tools, and no cluster yet."""
    return Machine.in_folder(tmp_path)


def order(ran: Ran, *beginnings: str) -> list[str]:
    """Of the calls that begin like one of these, the beginnings, in the order in which they were made."""
    return [begin for call in ran.calls for begin in beginnings if call.startswith(begin)]


def test_from_nothing_it_makes_cluster_registry_kuberay_images_and_operator(machine: Machine) -> None:
    ran = machine.setup()
    assert ran.code == 0, ran.said
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


def test_every_step_says_how_long_it_took_and_three_commands_come_last(machine: Machine) -> None:
    ran = machine.setup()
    steps = re.findall(r"^(?:setup|images): (.+): \d+\.\d s$", ran.said, re.MULTILINE)
    assert len(steps) >= 11, ran.said
    commands = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  ")]
    assert len(commands) == 3
    assert ran.out.rstrip().splitlines()[-1].startswith("  ")


def test_a_second_run_makes_nothing_anew(machine: Machine) -> None:
    machine.setup()
    left = machine.what_is_left()
    ran = machine.setup()
    assert ran.code == 0, ran.said
    assert order(ran, "kind create", "docker run", "docker build", "docker push", "docker rm") == []
    assert machine.what_is_left() == left


def test_changed_code_is_built_and_moved_again(machine: Machine) -> None:
    machine.setup()
    machine.writes("inference/ddpm_inference/driver.py", "changed\n")
    ran = machine.setup()
    assert order(ran, "docker build", "docker push") == ["docker build", "docker push"]
    assert ran.called("docker build", "Dockerfile.worker")


def test_changed_templates_are_of_the_operators_image_alone(machine: Machine) -> None:
    machine.setup()
    machine.writes("templates/pod.yaml.j2", "changed\n")
    ran = machine.setup()
    assert order(ran, "docker build") == ["docker build"]
    assert ran.called("docker build", "Dockerfile.operator")


def test_images_of_older_trees_go_but_no_others(machine: Machine) -> None:
    machine.setup(DEVICE="cuda")
    machine.setup()
    machine.writes("inference/ddpm_inference/driver.py", "changed\n")
    machine.setup()
    machine.writes("operator/ddpm_operator/main.py", "changed\n")
    machine.setup()
    built = [re.sub(r"[0-9a-f]{12}$", "", name) for name in machine.images()]
    assert sorted(built) == ["ddpm-ray-operator:", "ddpm-ray-worker:cpu-", "ddpm-ray-worker:cuda-"]


def test_images_that_nothing_on_the_cluster_names_leave_the_node_once_the_operator_uses_others(
    machine: Machine,
) -> None:
    machine.setup()
    used, unused = sorted(name for name in machine.on_node() if not name.endswith(":dev"))
    machine.has_objects(f"image: {used}\n")
    machine.writes("inference/ddpm_inference/driver.py", "changed\n")
    machine.writes("operator/ddpm_operator/main.py", "changed\n")
    ran = machine.setup()
    assert ran.code == 0, ran.said
    assert used in machine.on_node()
    assert unused not in machine.on_node()
    assert len(machine.on_node()) == 5  # two new ones, two called dev, and the one in use
    removal = next(call for call in ran.calls if "images rm" in call and unused in call)
    chart = next(call for call in ran.calls if call.startswith(CHART))
    assert ran.calls.index(removal) > ran.calls.index(chart)


def test_images_of_another_device_stay_on_the_node(machine: Machine) -> None:
    machine.setup(DEVICE="cuda")
    cuda = {name for name in machine.on_node() if ":cuda-" in name}
    machine.setup()
    assert cuda
    assert cuda <= machine.on_node()


@pytest.mark.parametrize(
    ("file", "changed"),
    [("hack/images/lib/base.sh", "# Debian's next\n"), ("requirements/worker.txt", "# a lock that changed\n")],
)
def test_an_image_of_another_base_or_other_packages_has_another_tag(machine: Machine, file: str, changed: str) -> None:
    before = machine.run("hack/images/build", "worker", "--to", "nowhere").out
    path = machine.tree / file
    path.write_text(path.read_text() + changed)
    assert machine.run("hack/images/build", "worker", "--to", "nowhere").out != before


def test_where_torch_comes_from_is_in_the_workers_tag_and_not_in_the_operators(machine: Machine) -> None:
    def tags(half: str) -> set[str]:
        build = ("hack/images/build", half, "--to", "nowhere")
        other = {"TORCH_INDEX": "https://torch.example/cpu"}
        return {machine.run(*build).out, machine.run(*build, **other).out}

    assert len(tags("worker")) == 2
    assert len(tags("operator")) == 1


def test_files_that_are_in_no_image_change_nothing(machine: Machine) -> None:
    machine.setup()
    machine.writes("inference/ddpm_inference/__pycache__/driver.cpython-311.pyc", "compiled\n")
    machine.writes("README.md", "new words\n")
    assert not machine.setup().called("docker build")


def test_a_registry_that_was_stopped_is_started(machine: Machine) -> None:
    machine.setup()
    machine.stops("ddpm-ray-registry")
    assert machine.setup().called("docker run", "--name ddpm-ray-registry")


def test_skip_images_builds_and_moves_none(machine: Machine) -> None:
    ran = machine.setup("--skip-images")
    assert ran.code == 0, ran.said
    assert order(ran, "docker build", "docker push") == []
    assert ran.called("kind create")


def test_delete_undoes_all_and_may_be_said_twice(machine: Machine) -> None:
    machine.setup()
    for _ in range(2):
        assert machine.setup("--delete").code == 0
        assert machine.what_is_left() == set()
    assert machine.setup().called("kind create")


def test_the_operator_runs_and_uses_the_very_images_that_were_moved(machine: Machine) -> None:
    ran = machine.setup()
    moved = {name.partition(":")[0]: name for name in machine.images()}
    values = f"worker.image={moved['ddpm-ray-worker']},image.name={moved['ddpm-ray-operator']}"
    assert ran.called(CHART, "--wait", f"--set-string {values}")


def test_without_images_the_operator_keeps_those_it_had_and_is_not_waited_for(machine: Machine) -> None:
    ran = machine.setup("--skip-images")
    assert ran.called(CHART, "--reset-then-reuse-values")
    assert not ran.called(CHART, "--wait")


def test_a_crd_that_tests_have_left_is_no_hindrance(machine: Machine) -> None:
    assert machine.setup().called(CHART, "--take-ownership")


def test_without_a_docker_engine_the_node_is_taken(machine: Machine) -> None:
    machine.docker_is_dead()
    ran = machine.setup(BASE_IMAGE="a-base")
    assert ran.code == 0, ran.said
    assert "provider: node" in ran.said
    assert order(ran, "up", "kuberay", "enter ctr", "kind", "helm")[:3] == ["up", "kuberay", "enter ctr"]
    for image in ("ddpm-ray-worker:cpu-", "ddpm-ray-operator:"):
        assert ran.called("podman", "push", f"198.51.100.2:5000/{image}")
        assert ran.called("enter ctr", "images pull", f"198.51.100.2:5000/{image}")
        assert ran.called("enter ctr", "images tag", f"docker.io/library/{image.partition(':')[0]}@sha256:5b3b")
    assert f"export KUBECONFIG={machine.folder}/kubeconfig" in ran.out


def test_delete_on_the_node_takes_the_node_down(machine: Machine) -> None:
    ran = machine.setup("--provider", "node", "--delete")
    assert ran.code == 0
    assert order(ran, "down", "up", "kind") == ["down"]


def test_the_node_gets_its_images_from_podman_also_where_docker_answers(machine: Machine) -> None:
    ran = machine.setup("--provider", "node", BASE_IMAGE="a-base")
    assert ran.code == 0, ran.said
    assert ran.called("podman", "push", "198.51.100.2:5000/ddpm-ray-worker:cpu-")
    assert order(ran, "docker build", "docker push", "docker tag") == []


def test_a_build_of_podmans_that_is_killed_leaves_no_mounts(machine: Machine) -> None:
    ran = machine.setup("--provider", "node", BASE_IMAGE="a-base")
    podmans = [call for call in ran.calls if call.startswith("podman")]
    assert podmans
    assert [f"unshare --mount {call}" for call in podmans] == [call for call in ran.calls if call.startswith("unshare")]


def test_no_proxy_is_asked_for_the_node(machine: Machine) -> None:
    ran = machine.setup(
        "--provider", "node", BASE_IMAGE="a-base", HTTPS_PROXY="http://proxy.example:3128", NO_PROXY="corp.example"
    )
    bypassed = (machine.folder / "state/podman's NO_PROXY").read_text().strip()
    assert bypassed == "corp.example,198.18.0.0/16,198.18.0.2,.svc"
    assert f"NO_PROXY={bypassed}" in ran.out
    assert "NO_PROXY" not in machine.setup("--provider", "node", BASE_IMAGE="a-base").out


@pytest.mark.parametrize("tool", ["kind", "kubectl", "helm"])
def test_a_missing_tool_is_named_with_where_to_get_it(machine: Machine, tool: str) -> None:
    machine.lacks(tool)
    ran = machine.setup()
    assert ran.code == 2
    assert f"{tool} is not there" in ran.said
    assert "https://" in ran.said
    assert not ran.called("kind create")


@pytest.mark.parametrize(
    ("tool", "old", "least"),
    [
        ("docker", "20.10.7", "23.0"),
        ("kind", "kind v0.9.0 go1.15", "0.24"),
        ("kubectl", "Client Version: v1.9.1", "1.30"),
        ("helm", "v3.9.4", "3.17"),
    ],
)
def test_an_old_tool_is_refused_with_the_version_that_is_needed(
    machine: Machine, tool: str, old: str, least: str
) -> None:
    machine.has_version(tool, old)
    ran = machine.setup()
    assert ran.code == 2
    assert re.search(rf"{tool} [\d.]+ is too old", ran.said)
    assert f"{tool} {least} or newer" in ran.said
    assert not ran.called("kind create")


def test_kind_without_a_docker_engine_is_refused(machine: Machine) -> None:
    machine.docker_is_dead()
    ran = machine.setup("--provider", "kind")
    assert ran.code == 2
    assert "no Docker engine answers" in ran.said
    assert "--provider node" in ran.said


@pytest.mark.parametrize(
    ("failing", "step", "never"),
    [
        ("kind create*", "made the cluster", "helm upgrade"),
        ("helm upgrade*", "KubeRay 1.6.1 is installed", "docker build"),
        ("docker build*", "built ddpm-ray-worker:", "docker push"),
        ("docker push*", "pushed the layers", "images pull"),
        (f"{CHART}*", "the operator runs", "nothing comes after it"),
    ],
)
def test_a_step_that_fails_is_named_and_ends_it(machine: Machine, failing: str, step: str, never: str) -> None:
    machine.fails(failing)
    ran = machine.setup()
    assert ran.code not in (0, 2)
    assert re.search(rf"{re.escape(step)}.*: failed \(exit \d+\)", ran.said), ran.said
    assert "shim: made to fail" in ran.said
    assert not ran.called(never)
    assert ran.out == ""

    machine.fails("")
    assert machine.setup().code == 0


def test_an_existing_cluster_needs_a_registry_or_no_images(machine: Machine) -> None:
    ran = machine.setup("--provider", "existing")
    assert ran.code == 2
    assert "REGISTRY=" in ran.said
    assert "--skip-images" in ran.said
    assert machine.setup("--provider", "existing", "--skip-images").code == 0


def test_images_for_an_existing_cluster_go_to_its_registry(machine: Machine) -> None:
    ran = machine.setup("--provider=existing", REGISTRY="registry.example/team")
    assert ran.code == 0, ran.said
    assert ran.called("docker push", "registry.example/team/ddpm-ray-worker:cpu-")
    assert ran.called(CHART, "image.name=registry.example/team/ddpm-ray-operator:")
    assert not ran.called("kind")


def test_a_kuberay_that_somebody_else_installed_is_left_alone(machine: Machine) -> None:
    machine.has_a_kuberay_of_its_own()
    ran = machine.setup("--provider", "existing", "--skip-images")
    assert not ran.called("helm upgrade", "kuberay")
    assert ran.called(CHART)


def test_on_an_existing_cluster_delete_uninstalls_only_what_this_script_installed(machine: Machine) -> None:
    machine.setup("--provider", "existing", "--skip-images")
    ran = machine.setup("--provider", "existing", "--delete")
    assert ran.code == 0
    assert machine.what_is_left() == set()
    assert order(ran, "kind", "docker rm") == []


def test_while_samplings_are_at_work_the_operator_of_an_existing_cluster_stays(machine: Machine) -> None:
    machine.has_a_kuberay_of_its_own()
    machine.setup("--provider", "existing", "--skip-images")
    (machine.folder / "at_work").write_text("team-a   digits-x7k2p\n")
    ran = machine.setup("--provider", "existing", "--delete")
    assert ran.code == 2
    assert "team-a/digits-x7k2p" in ran.said
    assert "kubectl delete ddpm" in ran.said
    assert not ran.called("helm uninstall")
    (machine.folder / "at_work").unlink()
    assert machine.setup("--provider", "existing", "--delete").code == 0


@pytest.mark.parametrize("arguments", [["--provider", "swarm"], ["--provider"], ["--force"]])
def test_bad_usage_is_refused(machine: Machine, arguments: list[str]) -> None:
    ran = machine.setup(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert not ran.called("kind create")


def test_help_touches_nothing(machine: Machine) -> None:
    ran = machine.setup("--help")
    assert ran.code == 0
    for flag in ("--provider", "--delete", "--skip-images"):
        assert flag in ran.out
    assert ran.calls == []
