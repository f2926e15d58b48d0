"""The audit reports planted vulnerabilities, and packages that it could not look up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hack.audit import debian, golang, pypi
from hack.audit.finding import Finding

JINJA2 = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [{"id": "PYSEC-2024-1", "aliases": ["CVE-2024-22195"], "fix_versions": ["3.1.3"]}],
}
FINE = {"name": "kopf", "version": "1.44.5", "vulns": []}
OPENSSL = {"name": "libssl3", "version": "3.0.17-1~deb12u2", "source": "openssl"}
PACKAGES = """Package: libssl3
Version: 3.0.17-1~deb12u3
Description: Secure Sockets Layer toolkit
 Version: 9

Package: libssl3
Version: 3.0.15-1~deb12u1

Package: zlib1g
Version: 1:1.2.13.dfsg-1
"""


def govulncheck_finding(osv: str, module: str, **at: str) -> str:
    trace = [{"module": module, "version": "v0.55.0", **at}]
    return json.dumps({"finding": {"osv": osv, "fixed_version": "v0.56.0", "trace": trace}}, indent=2)


def test_a_vulnerable_lock_names_the_fixed_version() -> None:
    finding = pypi.to_finding("requirements/worker.txt", True, [JINJA2, FINE])
    assert finding.vulnerabilities == ("jinja2 3.1.2: PYSEC-2024-1 CVE-2024-22195, fixed in 3.1.3",)
    assert (finding.checked, finding.not_checked, finding.fails) == (2, "", True)


def test_a_skipped_package_fails() -> None:
    finding = pypi.to_finding("requirements/worker.txt", True, [{"name": "ray", "skip_reason": "not found"}, FINE])
    assert (finding.checked, finding.not_checked, finding.fails) == (1, "ray: not found", True)


def test_an_index_without_vulnerabilities_is_queried_once(tmp_path: Any, monkeypatch: Any) -> None:  # noqa: ANN401
    calls = []

    def pip_audit(*arguments: str) -> list[dict[str, Any]]:
        calls.append(arguments)
        return [{"name": "jinja2", "skip_reason": "not found"}]

    monkeypatch.setattr(pypi, "_pip_audit", pip_audit)
    has_vulnerabilities = pypi.index_has_vulnerabilities(tmp_path)
    finding = pypi.audit(tmp_path / "worker.txt", has_vulnerabilities)
    assert (has_vulnerabilities, len(calls)) == (False, 1)
    assert "not even those of jinja2 3.1.2" in finding.not_checked
    assert finding.fails


def test_missing_debian_updates_are_reported() -> None:
    fixed = debian.newest([PACKAGES])
    assert fixed == {"libssl3": "3.0.17-1~deb12u3", "zlib1g": "1:1.2.13.dfsg-1"}
    finding = debian.compare("the image", [OPENSSL], fixed, "bookworm-security of today")
    assert finding.vulnerabilities == ("libssl3 3.0.17-1~deb12u2 (of openssl): fixed in 3.0.17-1~deb12u3",)
    assert finding.fails
    assert not debian.compare("the image", [OPENSSL | {"version": "3.0.17-1~deb12u3"}], fixed, "today").fails


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.1"),
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0+deb12u1"),
        ("1.0-1~deb12u2", "1.0-1~deb12u10"),
        ("1.0-1~deb12u2", "1.0-1"),
        ("9.9-1", "1:0.1-1"),
        ("1.0a", "1.0+"),
        ("1.0-9", "1.0.1-1"),
        ("2.36-9+deb12u9", "2.36-9+deb12u10"),
        ("1-1-1", "1-1-2"),
    ],
)
def test_versions_are_ordered_as_in_dpkg(older: str, newer: str) -> None:
    assert debian.older(older, newer)
    assert not debian.older(newer, older)
    assert not debian.older(older, older)


def test_a_vulnerable_function_is_reported_once() -> None:
    called = govulncheck_finding("GO-2026-1", "golang.org/x/crypto", function="Dial", package="golang.org/x/crypto/ssh")
    only_required = govulncheck_finding("GO-2026-2", "golang.org/x/crypto")
    report = "\n".join([json.dumps({"config": {}}), only_required, called, called, ""])
    vulnerabilities = golang.merged({"helm": report, "registry": called, "kubelet": only_required})
    assert vulnerabilities == ("golang.org/x/crypto v0.55.0 in helm, registry: GO-2026-1 (fixed in v0.56.0)",)


def test_vulnerable_test_programs_are_reported_but_pass() -> None:
    finding = Finding("Go programs", 2, "a database", ("GO-2026-1",), "not built: kueue", ships=False)
    assert not finding.fails
    assert str(finding).splitlines() == [
        "Go programs: 2 looked up in a database, vulnerable: 1",
        "  VULNERABLE GO-2026-1",
        "  NOT CHECKED: not built: kueue",
    ]
