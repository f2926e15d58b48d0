"""Custom templates in the chart's values: the operator uses them, and does not start with a broken one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import Manifest, Namespace
from tests.cluster.operator_release import SELECTOR, Operator
from tests.cluster.samplings import LIGHT, Sampling

pytestmark = [pytest.mark.operator_away, pytest.mark.long]

ROOT = Path(__file__).parents[2]
METADATA = """metadata:
  labels:
    own: template
{% for label in metadata.labels %}
    {{ label | tojson }}: {{ metadata.labels[label] | tojson }}
{% endfor %}
{% for field in metadata if field != "labels" %}
  {{ field | tojson }}: {{ metadata[field] | tojson }}
{% endfor %}
"""


@pytest.fixture
def restored(operator: Operator) -> Iterator[Operator]:
    """The release, which is reinstalled unchanged at the end."""
    yield operator
    operator.install()


def termination_message(pods: list[Manifest]) -> str:
    """Returns the termination message of the operator's container; "" if it has not terminated."""
    statuses = [it for pod in pods for it in pod["status"].get("containerStatuses", ())]
    ends = [it[which].get("terminated") for it in statuses for which in ("state", "lastState")]
    return "".join(end.get("message", "") for end in ends if end)


def test_custom_templates_are_used_and_broken_ones_fail_the_start(
    namespace: Namespace, restored: Operator, tmp_path: Path
) -> None:
    shipped = (ROOT / "templates" / "claim.yaml.j2").read_text()
    own = tmp_path / "claim.yaml.j2"
    own.write_text(shipped.replace("metadata: {{ metadata | tojson }}\n", METADATA))
    flags = ("--set-file", rf"templates.claim\.yaml\.j2={own}")
    restored.install(*flags)
    Sampling.apply(namespace, "digits", LIGHT | {"samples": 1}).wait_until_complete(1)
    claim = namespace.get("v1", "PersistentVolumeClaim", "digits-output")
    assert claim["metadata"]["labels"]["own"] == "template"

    own.write_text(shipped + "\nmissing: {{ missing | tojson }}\n")
    line = len(own.read_text().splitlines())
    with pytest.raises(AssertionError, match="UPGRADE FAILED"):
        restored.install(*flags, "--timeout", "20s")
    release = restored.namespace
    pods = release.wait_for_all(
        "v1", "Pod", lambda it: bool(termination_message(it)), 60, "the operator to end", SELECTOR
    )
    assert f"claim.yaml.j2, line {line}: 'missing' is undefined" in termination_message(pods)
