"""An administrator's own templates, given by the chart, reach the operator, which starts with no broken one."""

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
def changed(operator: Operator) -> Iterator[Operator]:
    """The release, which is as it was afterwards."""
    yield operator
    operator.install()


def end_of_the_operator(pods: list[Manifest]) -> str:
    """What its container said last, which the pod's status keeps; "" as long as it has not ended."""
    statuses = [it for pod in pods for it in pod["status"].get("containerStatuses", ())]
    ends = [it[which].get("terminated") for it in statuses for which in ("state", "lastState")]
    return "".join(end.get("message", "") for end in ends if end)


def test_an_own_template_reaches_the_operator_and_a_broken_one_keeps_it_from_starting(
    namespace: Namespace, changed: Operator, tmp_path: Path
) -> None:
    shipped = (ROOT / "templates" / "claim.yaml.j2").read_text()
    own = tmp_path / "claim.yaml.j2"
    own.write_text(shipped.replace("metadata: {{ metadata | tojson }}\n", METADATA))
    given = ("--set-file", rf"templates.claim\.yaml\.j2={own}")
    changed.install(*given)
    Sampling.apply(namespace, "digits", LIGHT | {"samples": 1}).wait_until_complete(1)
    claim = namespace.get("v1", "PersistentVolumeClaim", "digits-output")
    assert claim["metadata"]["labels"]["own"] == "template"

    own.write_text(shipped + "\nnobody: {{ nobody | tojson }}\n")
    line = len(own.read_text().splitlines())
    with pytest.raises(AssertionError, match="UPGRADE FAILED"):
        changed.install(*given, "--timeout", "20s")
    release = changed.namespace
    pods = release.wait_for_all(
        "v1", "Pod", lambda it: bool(end_of_the_operator(it)), 60, "the operator to end", SELECTOR
    )
    assert f"claim.yaml.j2, line {line}: 'nobody' is undefined" in end_of_the_operator(pods)
