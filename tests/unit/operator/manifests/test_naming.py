"""Names and labels of the objects that the operator creates."""

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
def test_cluster_name_is_a_label_that_kuberay_does_not_truncate(name: str, uid: str, attempt: int) -> None:
    cluster = cluster_name(Metadata(name=name, uid=uid), attempt)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", cluster)
    assert len(cluster) <= 50
    assert cluster.endswith(f"-{attempt}")


def test_names_are_readable_and_deterministic() -> None:
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


def test_cluster_names_differ_by_attempt_and_uid() -> None:
    samplings = [Metadata(name="digits", uid=uid) for uid in ("a", "b")]
    assert len({cluster_name(sampling, attempt) for sampling in samplings for attempt in (1, 2, 11)}) == 6


def test_preview_name_contains_a_hash_of_the_uid() -> None:
    names = {preview_name(Metadata(name="app", uid=uid)) for uid in ("a", "b")}
    assert len(names) == 2
    assert "app-preview" not in names


def test_labels_identify_sampling_and_attempt() -> None:
    assert labels(Metadata(name="digits", uid="u-1"), 3) == {
        "app.kubernetes.io/managed-by": "ddpm-operator",
        "ddpm-ray.io/sampling": "digits",
        "ddpm-ray.io/sampling-uid": "u-1",
        "ddpm-ray.io/attempt": "3",
    }
