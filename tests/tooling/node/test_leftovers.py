"""What hack/node leaves on a machine: it is told, and of a package's services nothing stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import NODE, PathWith, Run, Said, execute


class Etc:
    """A machine's folders of services, and an apt-get whose packages bring services of their own."""

    def __init__(self, folder: Path, run_part: Run) -> None:
        self.wants = folder / "etc/systemd/system/multi-user.target.wants"
        self.runlevel = folder / "etc/rc2.d"
        for each in (self.wants, self.runlevel):
            each.mkdir(parents=True)
        (self.wants / "mine.service").symlink_to("/lib/mine.service")
        self.policy = folder / "policy-rc.d"
        self._folders = f"policy={self.policy}; init_folders=({folder}/etc/systemd/system {folder}/etc/rc2.d);"
        self._run_part = run_part

    def run(self, step: str, apt_get: str = "") -> Said:
        return self._run_part(f"{self._folders} apt_get() {{ {apt_get or ':'}; }}; {step}")

    def services(self) -> list[str]:
        return sorted(link.name for folder in (self.wants, self.runlevel) for link in folder.iterdir())


@pytest.fixture
def etc(tmp_path: Path, run_part: Run) -> Etc:
    return Etc(tmp_path, run_part)


def test_services_that_a_package_brings_do_not_start_with_the_machine_and_others_still_do(etc: Etc) -> None:
    brings = f"ln -s /lib/x {etc.wants}/etcd.service; ln -s /etc/init.d/etcd {etc.runlevel}/S01etcd"
    assert etc.run("install_packages etcd-server", brings).returncode == 0
    assert etc.services() == ["mine.service"]


def test_while_packages_are_installed_no_service_may_start(etc: Etc, tmp_path: Path) -> None:
    said = etc.run("install_packages etcd-server", f"sh {etc.policy}; echo $? >{tmp_path}/answer")
    assert said.returncode == 0
    assert (tmp_path / "answer").read_text() == "101\n"
    assert not etc.policy.exists()


@pytest.mark.parametrize("end", ["exit 1", "kill -TERM $BASHPID", "kill -INT $BASHPID"])
def test_an_installation_that_fails_or_is_interrupted_forbids_no_service_afterwards(etc: Etc, end: str) -> None:
    assert etc.run("install_packages etcd-server", end).returncode != 0
    assert not etc.policy.exists()


def test_an_installation_that_was_killed_forbids_nothing_and_its_file_goes_next_time(etc: Etc) -> None:
    etc.run("install_packages etcd-server", "kill -KILL $BASHPID")
    assert etc.policy.exists()
    assert execute("sh", etc.policy).returncode == 0
    etc.run("services_start_again")
    assert not etc.policy.exists()


def test_a_policy_of_somebody_else_stays(etc: Etc) -> None:
    etc.policy.write_text("#!/bin/sh\nexit 101\n")
    etc.run("install_packages etcd-server; services_start_again")
    assert etc.policy.read_text() == "#!/bin/sh\nexit 101\n"


@pytest.mark.parametrize("script", ["up", "down"])
def test_up_and_down_clean_up_after_an_installation_that_was_killed(script: str) -> None:
    steps = (NODE / script).read_text()
    assert "\nservices_start_again\n" in steps.split("need_packages")[0].split("stop_node")[0]


@pytest.fixture
def cgroups(tmp_path: Path) -> str:
    """A hierarchy of cgroups that is no kernel's, for a node that does not run; in words of bash."""
    home = tmp_path / "cgroups"
    (home / "a-node-of-tests" / "pods" / "pod1").mkdir(parents=True)
    return (
        f"cgroup=a-node-of-tests; link=no-such-link; cgroup_roots() {{ echo {home}; }};"
        f'cgroup_home() {{ echo {home}/a-node-of-tests; }}; wait_for() {{ shift; "$@"; }};'
    )


def test_down_takes_the_cgroups_away(run_part: Run, cgroups: str, tmp_path: Path) -> None:
    assert run_part(f"{cgroups} stop_node").returncode == 0
    assert list((tmp_path / "cgroups").iterdir()) == []


def test_cgroups_that_stay_are_a_failure_that_names_what_is_in_them(
    run_part: Run, cgroups: str, tmp_path: Path
) -> None:
    pod = tmp_path / "cgroups/a-node-of-tests/pods/pod1"
    (pod / "held").touch()
    said = run_part(f"{cgroups} stop_node")
    assert said.returncode == 1
    assert f"cgroup {pod}" in said.stderr


def test_purge_removes_what_podman_has_built_and_keeps_the_programs(run_part: Run, cache: Path) -> None:
    for name in ("node/lib/registry", "podman/store/overlay", "s3-0123456789ab/bin"):
        (cache / "ddpm-ray" / name).mkdir(parents=True)
    assert run_part("remove_images").returncode == 0
    assert [path.name for path in (cache / "ddpm-ray").iterdir()] == ["s3-0123456789ab"]


def footprint(run: Run, path: str) -> list[str]:
    """Without cgroups, which come and go where a node runs meanwhile."""
    said = run("footprint", PATH=path)
    assert said.returncode == 0, said.stderr
    return [line for line in said.stdout.splitlines() if not line.startswith(("cgroup ", "process "))]


@pytest.mark.parametrize(
    ("program", "says", "line"),
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
def test_the_footprint_has_a_line_for_what_the_network_has_of_the_node(
    run: Run, path_with: PathWith, program: str, says: str, line: str
) -> None:
    before = footprint(run, path_with(program, ""))
    after = footprint(run, path_with(program, says))
    assert [each for each in after if each not in before] == [line]


@pytest.mark.parametrize("program", ["ip", "iptables-save"])
def test_a_machine_that_lacks_the_programs_has_a_footprint_too(run: Run, path_with: PathWith, program: str) -> None:
    has_nothing = footprint(run, path_with(program, ""))
    assert footprint(run, path_with(program, "exit 127")) == has_nothing


def test_the_footprint_does_not_tell_what_every_kernel_has(run: Run, path_with: PathWith) -> None:
    before = footprint(run, path_with("iptables-save", ""))
    own = "echo '# Generated at noon'; echo ':INPUT ACCEPT [12:3456]'; echo '*filter'; echo COMMIT"
    assert footprint(run, path_with("iptables-save", own)) == before


def test_the_footprint_tells_cgroups_and_the_processes_in_them(run_part: Run, cgroups: str, tmp_path: Path) -> None:
    pod = tmp_path / "cgroups/a-node-of-tests/pods/pod1"
    (pod / "cgroup.procs").write_text("1\n")
    said = run_part(f"{cgroups} cgroup_contents").stdout.splitlines()
    assert f"cgroup {pod}" in said
    assert [line for line in said if line.startswith("process 1 ") and line.endswith(f" in {pod}")]
