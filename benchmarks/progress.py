"""How far the status of a sampling is behind its driver's own word.

    PYTHONPATH=. python benchmarks/progress.py [--check]

Needs a cluster where the operator runs (KUBECONFIG, or the local one of ./kind-setup.sh), and a minute. A sampling
stores a shard about once a second; its driver's /progress is asked ten times a second, and the status watched.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import urllib.error
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

from rayjob import the_cluster
from timing import machine

from tests.cluster.kube import Namespace, has_condition
from tests.cluster.ray_api import RayApi
from tests.cluster.samplings import API, KIND, SMALL, Sampling, head_of, token_of

SHARDS = SMALL | {"samples": 240, "batchSize": 8, "sampler": {"name": "ddpm", "steps": 100}}
PORT = 8500
ASKS_EVERY = 0.1
END_TIMEOUT = 300
MOST_BEHIND = 5.0


class Said(NamedTuple):
    """So many samples are done, as somebody says at a moment of the monotonic clock."""

    time: float
    done: int


def by_the_driver(driver: RayApi) -> Iterator[Said]:
    """Until it has ended, with its answers."""
    while True:
        try:
            document = json.loads(driver.text("/progress"))
        except (urllib.error.URLError, ConnectionError):
            return
        yield Said(time.monotonic(), document["done"])
        time.sleep(ASKS_EVERY)


def by_the_status(namespace: Namespace, name: str) -> Iterator[Said]:
    """Until it is complete."""
    resource = namespace.cluster.resource(API, KIND)
    fields = f"metadata.name={name}"
    for event in resource.watch(namespace=namespace.name, field_selector=fields, timeout=END_TIMEOUT):
        seen = event["raw_object"]
        yield Said(time.monotonic(), seen["status"].get("progress", {}).get("done", 0))
        if has_condition("Complete")(seen) or has_condition("Failed")(seen):
            return


def behind(driver: Sequence[Said], status: Sequence[Said]) -> list[float]:
    """Seconds from each step of the driver's until the status tells as many samples or more."""
    steps = [one for before, one in pairwise(driver) if one.done > before.done]
    return [next(it.time for it in status if it.done >= step.done) - step.time for step in steps]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the promise is not kept")
    asked = parser.parse_args()
    cluster = the_cluster()
    with cluster.namespace("ddpm-bench-progress") as namespace, ThreadPoolExecutor(1) as watching:
        sampling = Sampling.apply(namespace, "digits", SHARDS)
        sampling.wait_for("Running")
        status = watching.submit(lambda: list(by_the_status(namespace, "digits")))
        head = head_of(sampling)
        token = token_of(namespace, head["labels"]["ray.io/cluster"], "progress_token")
        with namespace.port_forward(f"pod/{head['name']}", f":{PORT}") as ports:
            driver = list(by_the_driver(RayApi(ports[PORT], token)))
        late = behind(driver, status.result())
    cluster.wait_for_namespaces_to_go()
    print(f"The status behind its driver, in seconds; {len(late)} steps; {machine()}")
    print(f"median {statistics.median(late):.1f}, at most {max(late):.1f}")
    if asked.check and max(late) > MOST_BEHIND:
        print(f"too late: {max(late):.1f} s behind, and may be {MOST_BEHIND:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
