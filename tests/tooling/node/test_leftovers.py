"""Traces of hack/node on a machine: `footprint` lists them, and services of installed packages stay disabled."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import NODE, Completed, PathWith, Run, execute


class Etc:
    """The service folders of a machine, and an apt-get whose packages add services."""

    def __init__(self, folder: Path, run_part: Run) -> None:
        self.wants = folder / "etc/systemd/system/multi-user.target.wants"
        self.runlevel = folder / "etc/rc2.d"
        for each in (self.wants, self.runlevel):
            each.mkdir(parents=True)
        (self.wants / "mine.service").symlink_to("/lib/mine.service")
        self.policy = folder / "policy-rc.d"
        self._folders = f"policy={self.policy}; init_folders=({folder}/etc/systemd/system {folder}/etc/rc2.d);"
        self._run_part = run_part

    def run(self, step: str, apt_get: str = "") -> Completed:
        return self._run_part(f"{self._folders} apt_get() {{ {apt_get or ':'}; }}; {step}")

    def services(self) -> list[str]:
        return sorted(link.name for folder in (self.wants, self.runlevel) for link in folder.iterdir())


@pytest.fixture
def etc(tmp_path: Path, run_part: Run) -> Etc:
    return Etc(tmp_path, run_part)


def test_services_of_packages_are_disabled_and_others_kept(etc: Etc) -> None:
    adds_services = f"ln -s /lib/x {etc.wants}/etcd.service; ln -s /etc/init.d/etcd {etc.runlevel}/S01etcd"
    assert etc.run("install_packages etcd-server", adds_services).returncode == 0
    assert etc.services() == ["mine.service"]


def test_no_service_may_start_during_an_installation(etc: Etc, tmp_path: Path) -> None:
    completed = etc.run("install_packages etcd-server", f"sh {etc.policy}; echo $? >{tmp_path}/answer")
    assert completed.returncode == 0
    assert (tmp_path / "answer").read_text() == "101\n"
    assert not etc.policy.exists()


@pytest.mark.parametrize("end", ["exit 1", "kill -TERM $BASHPID", "kill -INT $BASHPID"])
def test_a_failed_installation_restores_the_policy(etc: Etc, end: str) -> None:
    assert etc.run("install_packages etcd-server", end).returncode != 0
    assert not etc.policy.exists()


def test_the_policy_of_a_killed_installation_is_void_and_removed(etc: Etc) -> None:
    etc.run("install_packages etcd-server", "kill -KILL $BASHPID")
    assert etc.policy.exists()
    assert execute("sh", etc.policy).returncode == 0
    etc.run("restore_service_policy")
    assert not etc.policy.exists()


def test_a_foreign_policy_is_kept(etc: Etc) -> None:
    etc.policy.write_text("#!/bin/sh\nexit 101\n")
    etc.run("install_packages etcd-server; restore_service_policy")
    assert etc.policy.read_text() == "#!/bin/sh\nexit 101\n"


@pytest.mark.parametrize("script", ["up", "down"])
def test_up_and_down_restore_the_policy(script: str) -> None:
    steps = (NODE / script).read_text()
    assert "\nrestore_service_policy\n" in steps.split("need_packages")[0].split("stop_node")[0]


@pytest.fixture
def cgroups(tmp_path: Path) -> str:
    """Bash code that defines a fake hierarchy of cgroups, for a node that does not run."""
    home = tmp_path / "cgroups"
    (home / "a-node-of-tests" / "pods" / "pod1").mkdir(parents=True)
    return (
        f"cgroup=a-node-of-tests; link=no-such-link; cgroup_roots() {{ echo {home}; }};"
        f'main_cgroup() {{ echo {home}/a-node-of-tests; }}; wait_for() {{ shift; "$@"; }};'
    )


def test_stop_removes_the_cgroups(run_part: Run, cgroups: str, tmp_path: Path) -> None:
    assert run_part(f"{cgroups} stop_node").returncode == 0
    assert list((tmp_path / "cgroups").iterdir()) == []


def test_remaining_cgroups_fail_and_are_listed(run_part: Run, cgroups: str, tmp_path: Path) -> None:
    pod = tmp_path / "cgroups/a-node-of-tests/pods/pod1"
    (pod / "held").touch()
    completed = run_part(f"{cgroups} stop_node")
    assert completed.returncode == 1
    assert f"cgroup {pod}" in completed.stderr


def test_purge_removes_images_and_keeps_programs(run_part: Run, cache: Path) -> None:
    for name in ("node/lib/registry", "podman/store/overlay", "s3-0123456789ab/bin"):
        (cache / "ddpm-ray" / name).mkdir(parents=True)
    assert run_part("remove_images").returncode == 0
    assert [path.name for path in (cache / "ddpm-ray").iterdir()] == ["s3-0123456789ab"]


def footprint(run: Run, path: str) -> list[str]:
    """Returns the lines without those of cgroups, which change if a node runs meanwhile."""
    completed = run("footprint", PATH=path)
    assert completed.returncode == 0, completed.stderr
    return [line for line in completed.stdout.splitlines() if not line.startswith(("cgroup ", "process "))]


@pytest.mark.parametrize(
    ("program", "prints", "line"),
    [
        ("ip", "[ $1 = -4 ] || { echo '7: ddpm-ray@if2: <UP>'; echo '8: ddpm-ray2: <UP>'; }", "link ddpm-ray"),
        (
            "ip",
            "[ $1 = -4 ] && echo '198.18.0.0/16 via 198.18.0.2 dev x'",
            "route 198.18.0.0/16 via 198.18.0.2 dev x",
        ),
        ("iptables-save", "echo '-A INPUT -j ACCEPT'", "iptables -A INPUT -j ACCEPT"),
        ("iptables-save", "echo ':KUBE-SERVICES - [0:0]'", "iptables :KUBE-SERVICES"),
    ],
)
def test_footprint_lists_links_routes_and_rules(
    run: Run, path_with: PathWith, program: str, prints: str, line: str
) -> None:
    before = footprint(run, path_with(program, ""))
    after = footprint(run, path_with(program, prints))
    assert [each for each in after if each not in before] == [line]


@pytest.mark.parametrize("program", ["ip", "iptables-save"])
def test_footprint_works_without_ip_and_iptables(run: Run, path_with: PathWith, program: str) -> None:
    empty = footprint(run, path_with(program, ""))
    assert footprint(run, path_with(program, "exit 127")) == empty


def test_footprint_omits_built_in_chains(run: Run, path_with: PathWith) -> None:
    before = footprint(run, path_with("iptables-save", ""))
    own = "echo '# Generated at noon'; echo ':INPUT ACCEPT [12:3456]'; echo '*filter'; echo COMMIT"
    assert footprint(run, path_with("iptables-save", own)) == before


def test_footprint_lists_cgroups_and_their_processes(run_part: Run, cgroups: str, tmp_path: Path) -> None:
    pod = tmp_path / "cgroups/a-node-of-tests/pods/pod1"
    (pod / "cgroup.procs").write_text("1\n")
    completed = run_part(f"{cgroups} cgroup_contents").stdout.splitlines()
    assert f"cgroup {pod}" in completed
    assert [line for line in completed if line.startswith("process 1 ") and line.endswith(f" in {pod}")]
