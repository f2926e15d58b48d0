"""The image by digest, if it can be pulled by that digest."""

from __future__ import annotations

import pytest

from ddpm_operator.reconcile.images import pinned_image
from ddpm_operator.reconcile.observed import Container, ObservedPod, Waiting

DIGEST = "@sha256:" + "ab" * 32


def head(image_id: str) -> ObservedPod:
    container = Container("ray-head", Waiting("x"), image_id)
    return ObservedPod("h", "h", "c", 1, "head", "Running", containers=(container,))


@pytest.mark.parametrize(
    ("requested", "image_id", "kept"),
    [
        (
            "registry.example.com/worker:1",
            f"registry.example.com/worker{DIGEST}",
            f"registry.example.com/worker{DIGEST}",
        ),
        ("localhost:5000/worker:1", f"localhost:5000/worker{DIGEST}", f"localhost:5000/worker{DIGEST}"),
        ("worker:1", f"docker.io/library/worker{DIGEST}", f"docker.io/library/worker{DIGEST}"),
        ("team/worker", f"docker.io/team/worker{DIGEST}", f"docker.io/team/worker{DIGEST}"),
        (f"worker{DIGEST}", f"docker-pullable://worker{DIGEST}", f"worker{DIGEST}"),
        ("worker:1", "sha256:" + "cd" * 32, "worker:1"),
        ("worker:1", f"docker.io/library/import-2026-11-23{DIGEST}", "worker:1"),
        ("worker:1", "", None),
    ],
)
def test_digest_is_kept_if_it_can_be_pulled(requested: str, image_id: str, kept: str | None) -> None:
    assert pinned_image(head(image_id), requested) == kept
