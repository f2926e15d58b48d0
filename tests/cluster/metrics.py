"""Reads the operator's metrics through a port-forward to its pod."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from ddpm_operator.controller.metrics import PORT
from tests.cluster.operator_release import Operator

# (name of a series, its labels) -> value
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def metrics_text(operator: Operator) -> str:
    """Returns all metrics in the text format of Prometheus."""
    pod = f"deployment/{operator.release}-operator"
    with (
        operator.namespace.port_forward(pod, f":{PORT}") as ports,
        urlopen(f"http://127.0.0.1:{ports[PORT]}/metrics", timeout=20) as response,
    ):
        text: str = response.read().decode()
    return text


def series(text: str) -> Series:
    samples = [it for family in text_string_to_metric_families(text) for it in family.samples]
    return {(it.name, frozenset(it.labels.items())): it.value for it in samples}


def total(found: Series, name: str, **labels: str) -> float:
    """Returns the sum of all series of a name that have these labels."""
    return sum(value for (its, has), value in found.items() if its == name and labels.items() <= dict(has).items())
