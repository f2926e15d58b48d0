"""The chart's alert rules, evaluated by promtool: each fires when it should and at no other time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.prometheus import OPERATOR, built, monitored, rendered

# Building Prometheus takes minutes. These tests use no cluster.
pytestmark = [pytest.mark.long, pytest.mark.draws_nothing]

UP = {f"up{{{OPERATOR}}}": "1x180"}


def reconciles(result: str) -> str:
    return f'ddpm_operator_reconciles_total{{{OPERATOR}, result="{result}"}}'


def ended(reason: str) -> str:
    return f'ddpm_samplings_ended_total{{{OPERATOR}, reason="{reason}"}}'


OUTLIVED = f"ddpm_samplings_outlived_by_cluster{{{OPERATOR}}}"
# Case -> series with a value per minute ("0+6x180" is 0, 6, 12, …), and minute -> alerts that fire then.
CASES = {
    "all is well": (
        {
            reconciles("done"): "0+60x180",
            reconciles("refused"): "0+20x180",
            ended("Complete"): "0+1x180",
            OUTLIVED: "0x180",
        },
        {60: set(), 180: set()},
    ),
    "the operator is down": (
        {f"up{{{OPERATOR}}}": "1x20 0x60"},
        {20: set(), 30: set(), 32: {"DDPMOperatorAbsent"}},
    ),
    "the operator is unknown to Prometheus, others are up": (
        {f"up{{{OPERATOR}}}": "_x180", 'up{job="other", namespace="ddpm-ray"}': "1x180"},
        {9: set(), 11: {"DDPMOperatorAbsent"}},
    ),
    "the operator is replaced": ({f"up{{{OPERATOR}}}": "1x20 0x8 1x60"}, {28: set(), 40: set()}),
    **{
        f"most reconciles are {result}": (
            {reconciles(result): "0+60x180", reconciles("done"): "0+50x180"},
            {29: set(), 40: {"DDPMReconcileErrors"}},
        )
        for result in ("refused", "unreachable", "stalled", "unreadable", "crashed")
    },
    "most reconciles are overtaken": (
        {reconciles("overtaken"): "0+60x180", reconciles("done"): "0+5x180"},
        {120: set()},
    ),
    "reconciles fail for a quarter of an hour": (
        {reconciles("refused"): "0x10 0+60x15 900x180", reconciles("done"): "0+1x10 10x15 10+60x180"},
        {25: set(), 40: set(), 60: set()},
    ),
    "three samplings lose their workers": (
        {ended("WorkerLost"): "0x20 3x180"},
        {20: set(), 22: {"DDPMSamplingsFail"}},
    ),
    "two lose their workers, two their head": (
        {ended("WorkerLost"): "0x20 2x180", ended("HeadLost"): "0x20 2x180"},
        {22: set(), 60: set()},
    ),
    "three fail in a day": ({ended("WorkerLost"): "0x20 1x61 2x61 3x61"}, {22: set(), 100: set(), 170: set()}),
    "specs are wrong": (
        {ended(it): "0+5x180" for it in ("InvalidSpec", "ModelNotFound", "ModelRejected", "ReferenceNotFound")},
        {60: set(), 180: set()},
    ),
    "a cluster stays": ({OUTLIVED: "0x10 1x60"}, {24: set(), 27: {"DDPMClusterOutlivesSampling"}}),
    "clusters take a while to be deleted": ({OUTLIVED: "0x10 2x10 0x60"}, {20: set(), 30: set()}),
}


@pytest.fixture(scope="module")
def promtool() -> Path:
    return built("prometheus") / "promtool"


@pytest.fixture(scope="module")
def rules() -> str:
    """The chart's rules as a rule file of Prometheus."""
    return yaml.safe_dump(rendered(monitored(), "PrometheusRule")["spec"])


@pytest.mark.parametrize("case", CASES)
def test_exactly_the_expected_alerts_fire(case: str, rules: str, promtool: Path, tmp_path: Path) -> None:
    series, firing = CASES[case]
    (tmp_path / "rules.yaml").write_text(rules)
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    expected = [
        {
            "expr": query,
            "eval_time": f"{minutes}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
        }
        for minutes, names in firing.items()
    ]
    inputs = [{"series": name, "values": values} for name, values in (UP | series).items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": expected}
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
