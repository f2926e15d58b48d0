"""Names of what the operator makes."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import Metadata
from ddpm_operator.manifests.naming import claim_name, cluster_name, labels, preview_name, slug

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda name: re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)
)


@settings(deadline=None)
@given(NAMES, st.uuids().map(str), st.integers(1, 10**9))
def test_a_cluster_name_is_one_that_kuberay_does_not_cut(name: str, uid: str, attempt: int) -> None:
    cluster = cluster_name(Metadata(name=name, uid=uid), attempt)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", cluster)
    assert len(cluster) <= 50
    assert cluster.endswith(f"-{attempt}")


def test_names_are_readable_and_known_beforehand() -> None:
    sampling = Metadata(name="my.digits-of-2026", uid="0e2f7b1c")
    assert cluster_name(sampling, 2) == "my-digits-of-2026-c3f8ec0a-2"
    assert preview_name(sampling) == "my-digits-of-2026-c3f8ec0a-preview"
    assert claim_name(Metadata(name="digits")) == "digits-output"
    assert [slug(name) for name in ("2026", "7-digits", "a" * 40, "a" * 29 + "-b")] == [
        "ddpm",
        "digits",
        "a" * 30,
        "a" * 29,
    ]


def test_every_attempt_and_every_resource_has_a_name_of_its_own() -> None:
    samplings = [Metadata(name="digits", uid=uid) for uid in ("a", "b")]
    assert len({cluster_name(sampling, attempt) for sampling in samplings for attempt in (1, 2, 11)}) == 6


def test_what_is_written_without_a_look_at_what_is_there_has_a_name_that_nobody_else_would_choose() -> None:
    names = {preview_name(Metadata(name="app", uid=uid)) for uid in ("a", "b")}
    assert len(names) == 2
    assert "app-preview" not in names


def test_labels_tell_whose_and_which_attempt() -> None:
    assert labels(Metadata(name="digits", uid="u-1"), 3) == {
        "app.kubernetes.io/managed-by": "ddpm-operator",
        "ddpm-ray.io/sampling": "digits",
        "ddpm-ray.io/sampling-uid": "u-1",
        "ddpm-ray.io/attempt": "3",
    }
