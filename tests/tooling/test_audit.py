"""The audit of known vulnerabilities tells of a planted one, and of what it could not look up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hack.audit import debian, golang, pypi
from hack.audit.look import Look

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


def finding(osv: str, module: str, **at: str) -> str:
    trace = [{"module": module, "version": "v0.55.0", **at}]
    return json.dumps({"finding": {"osv": osv, "fixed_version": "v0.56.0", "trace": trace}}, indent=2)


def test_a_hole_of_a_locked_package_is_told_with_its_mended_version() -> None:
    look = pypi.told("requirements/worker.txt", True, [JINJA2, FINE])
    assert look.holes == ("jinja2 3.1.2: PYSEC-2024-1 CVE-2024-22195, fixed in 3.1.3",)
    assert (look.number, look.unseen, look.fails) == (2, "", True)


def test_a_package_that_was_skipped_is_not_taken_for_a_sound_one() -> None:
    look = pypi.told("requirements/worker.txt", True, [{"name": "ray", "skip_reason": "not found"}, FINE])
    assert (look.number, look.unseen, look.fails) == (1, "ray: not found", True)


def test_an_index_that_knows_no_hole_at_all_is_not_asked_for_more(tmp_path: Any, monkeypatch: Any) -> None:  # noqa: ANN401
    asked = []

    def ask(*arguments: str) -> list[dict[str, Any]]:
        asked.append(arguments)
        return [{"name": "jinja2", "skip_reason": "not found"}]

    monkeypatch.setattr(pypi, "_ask", ask)
    tells = pypi.index_tells_of_holes(tmp_path)
    look = pypi.look(tmp_path / "worker.txt", tells)
    assert (tells, len(asked)) == (False, 1)
    assert "not even jinja2 3.1.2's" in look.unseen
    assert look.fails


def test_what_debian_has_mended_and_the_image_lacks_is_told() -> None:
    mended = debian.newest([PACKAGES])
    assert mended == {"libssl3": "3.0.17-1~deb12u3", "zlib1g": "1:1.2.13.dfsg-1"}
    look = debian.held_against("the image", [OPENSSL], mended, "bookworm-security of today")
    assert look.holes == ("libssl3 3.0.17-1~deb12u2 (of openssl): mended in 3.0.17-1~deb12u3",)
    assert look.fails
    assert not debian.held_against("the image", [OPENSSL | {"version": "3.0.17-1~deb12u3"}], mended, "today").fails


@pytest.mark.parametrize(
    ("one", "other"),
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
def test_versions_are_ordered_as_dpkg_orders_them(one: str, other: str) -> None:
    assert debian.older(one, other)
    assert not debian.older(other, one)
    assert not debian.older(one, one)


def test_a_hole_whose_function_is_in_a_program_is_told_once() -> None:
    called = finding("GO-2026-1", "golang.org/x/crypto", function="Dial", package="golang.org/x/crypto/ssh")
    only_required = finding("GO-2026-2", "golang.org/x/crypto")
    said = "\n".join([json.dumps({"config": {}}), only_required, called, called, ""])
    holes = golang.merged({"helm": said, "registry": called, "kubelet": only_required})
    assert holes == ("golang.org/x/crypto v0.55.0 in helm, registry: GO-2026-1 (mended in v0.56.0)",)


def test_holes_of_what_only_tests_run_are_told_and_fail_nothing() -> None:
    look = Look("Go programs", 2, "a database", ("GO-2026-1",), "not built: kueue", ships=False)
    assert not look.fails
    assert str(look).splitlines() == [
        "Go programs: 2 looked up in a database, with known holes: 1",
        "  HOLE GO-2026-1",
        "  NOT LOOKED UP: not built: kueue",
    ]
