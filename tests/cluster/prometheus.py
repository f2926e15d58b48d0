"""A real Prometheus on this machine that discovers the operator as the Prometheus operator would configure it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.cluster.kube import Manifest
from tests.cluster.operator_release import NAMESPACE, RELEASE
from tests.support.rays import free_port

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 60.0
MONITORED = "metrics.enabled=true,metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true"
# The labels by which the chart's alerts select the operator.
OPERATOR = f'job="{RELEASE}-operator-metrics", namespace="{NAMESPACE}"'
INTERVAL = "1s"
POLL_SECONDS = 0.2


def built(group: str) -> Path:
    """Builds a group of programs of hack/node if needed; returns its folder."""
    done = subprocess.run([ROOT / "hack/node/build", group], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


def monitored() -> list[Manifest]:
    """Renders the chart with its ServiceMonitor and PrometheusRule."""
    release = [RELEASE, ROOT / "charts/ddpm-ray", "--namespace", NAMESPACE, "--kube-version", "1.30.0"]
    command = [built("helm") / "helm", "template", *release, "--set", MONITORED]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [it for it in yaml.safe_load_all(output) if it]


def rendered(documents: list[Manifest], kind: str) -> Manifest:
    """Returns the only document of a kind."""
    (found,) = [it for it in documents if it["kind"] == kind]
    return found


def scrape_config(monitor: Manifest, kubeconfig: Path) -> dict[str, Any]:
    """Returns the configuration that the Prometheus operator generates for a ServiceMonitor, in essence."""
    wanted: dict[str, str] = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    service = "__meta_kubernetes_service"

    def keep(source: str, value: str) -> dict[str, Any]:
        return {"action": "keep", "source_labels": [source], "regex": value}

    def into(target: str, source: str) -> dict[str, Any]:
        return {"source_labels": [source], "target_label": target}

    labels = {f"{service}_label_{''.join(c if c.isalnum() else '_' for c in it)}": it for it in wanted}
    return {
        "job_name": f"serviceMonitor/{monitor['metadata']['namespace']}/{monitor['metadata']['name']}/0",
        "metrics_path": endpoint["path"],
        "scrape_interval": INTERVAL,
        "scrape_timeout": INTERVAL,
        "kubernetes_sd_configs": [
            {
                "role": "endpointslice",
                "kubeconfig_file": str(kubeconfig),
                "namespaces": {"names": [monitor["metadata"]["namespace"]]},
            }
        ],
        "relabel_configs": [
            *(keep(label, wanted[it]) for label, it in labels.items()),
            keep("__meta_kubernetes_endpointslice_port_name", endpoint["port"]),
            into("namespace", "__meta_kubernetes_namespace"),
            into("service", f"{service}_name"),
            into("pod", "__meta_kubernetes_pod_name"),
            into("job", f"{service}_name"),
        ],
    }


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus.

    Attributes:
        address: host:port.
    """

    address: str

    def values(self, query: str) -> dict[frozenset[tuple[str, str]], float]:
        """Returns labels, without the name, -> value of each series of an instant query."""
        with urlopen(f"http://{self.address}/api/v1/query?{urlencode({'query': query})}", timeout=20) as response:
            result = json.load(response)["data"]["result"]
        return {
            frozenset((name, value) for name, value in it["metric"].items() if name != "__name__"): float(
                it["value"][1]
            )
            for it in result
        }

    def alerts(self) -> dict[str, str]:
        """Returns alert -> pending or firing."""
        found = self.values("ALERTS")
        return {dict(labels)["alertname"]: dict(labels)["alertstate"] for labels in found}

    def wait(self, happened: Callable[[], object], timeout: float, what: str) -> None:
        """Polls until `happened` returns something true.

        Raises:
            TimeoutError: if it does not in time.
        """
        deadline = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout:g} s for {what}; up: {self.values('up')}, {self.alerts()}")
            time.sleep(POLL_SECONDS)


@contextmanager
def prometheus(folder: Path, documents: list[Manifest], kubeconfig: Path) -> Iterator[Prometheus]:
    """Runs Prometheus during the block, with the ServiceMonitor and PrometheusRule of a rendered chart.

    Args:
        folder: for its configuration, data and log.
    """
    rules = rendered(documents, "PrometheusRule")["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape_config(rendered(documents, "ServiceMonitor"), kubeconfig)],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    listen = f"127.0.0.1:{free_port()}"
    options = [
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={listen}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([built("prometheus") / "prometheus", *options], stdout=log, stderr=log)
    try:
        _wait_until_ready(listen, process, folder / "log")
        yield Prometheus(listen)
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Prometheus does not start: {log.read_text()}") from error
            time.sleep(POLL_SECONDS)
