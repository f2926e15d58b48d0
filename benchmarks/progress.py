"""Measures how far the status of a sampling lags behind its driver's progress.

    PYTHONPATH=. python benchmarks/progress.py [--check]

Needs a cluster where the operator runs (KUBECONFIG, or the local one of ./kind-setup.sh), and a minute. A sampling
stores a shard about once a second. Its driver's /progress is polled ten times a second, and its status is watched.
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

from rayjob import connect_cluster
from timing import machine

from tests.cluster.kube import Namespace, has_condition
from tests.cluster.ray_api import RayApi
from tests.cluster.samplings import API, KIND, SMALL, Sampling, head_of, token_of

SHARDS = SMALL | {"samples": 240, "batchSize": 8, "sampler": {"name": "ddpm", "steps": 100}}
PORT = 8500
POLL_INTERVAL = 0.1
END_TIMEOUT = 300
MAX_LAG = 5.0


class Observation(NamedTuple):
    """The number of stored samples reported at a time of the monotonic clock."""

    time: float
    done: int


def poll_driver(driver: RayApi) -> Iterator[Observation]:
    """Polls the progress until the driver has exited."""
    while True:
        try:
            document = json.loads(driver.text("/progress"))
        except (urllib.error.URLError, ConnectionError):
            return
        yield Observation(time.monotonic(), document["done"])
        time.sleep(POLL_INTERVAL)


def watch_status(namespace: Namespace, name: str) -> Iterator[Observation]:
    """Watches the status until the sampling has ended."""
    resource = namespace.cluster.resource(API, KIND)
    fields = f"metadata.name={name}"
    for event in resource.watch(namespace=namespace.name, field_selector=fields, timeout=END_TIMEOUT):
        sampling = event["raw_object"]
        yield Observation(time.monotonic(), sampling["status"].get("progress", {}).get("done", 0))
        if has_condition("Complete")(sampling) or has_condition("Failed")(sampling):
            return


def lags(driver: Sequence[Observation], status: Sequence[Observation]) -> list[float]:
    """Returns the seconds from each increase in the driver's progress until the status reports at least as many."""
    steps = [one for before, one in pairwise(driver) if one.done > before.done]
    return [next(each.time for each in status if each.done >= step.done) - step.time for step in steps]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"exit with code 1 if the lag exceeds {MAX_LAG:g} s")
    options = parser.parse_args()
    cluster = connect_cluster()
    with cluster.namespace("ddpm-bench-progress") as namespace, ThreadPoolExecutor(1) as executor:
        sampling = Sampling.apply(namespace, "digits", SHARDS)
        sampling.wait_for("Running")
        status = executor.submit(lambda: list(watch_status(namespace, "digits")))
        head = head_of(sampling)
        token = token_of(namespace, head["labels"]["ray.io/cluster"], "progress_token")
        with namespace.port_forward(f"pod/{head['name']}", f":{PORT}") as ports:
            driver = list(poll_driver(RayApi(ports[PORT], token)))
        lag = lags(driver, status.result())
    cluster.wait_for_namespaces_to_go()
    print(f"Lag of the status behind its driver, in seconds; {len(lag)} steps; {machine()}")
    print(f"median {statistics.median(lag):.1f}, at most {max(lag):.1f}")
    if options.check and max(lag) > MAX_LAG:
        print(f"the lag is {max(lag):.1f} s, at most {MAX_LAG:g} s is allowed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
