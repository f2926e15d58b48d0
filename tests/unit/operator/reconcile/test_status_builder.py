"""Tests of the typed parameters of StatusBuilder."""

from __future__ import annotations

from ddpm_operator.api import Status
from ddpm_operator.api.status import Cluster
from ddpm_operator.reconcile.status_builder import ClusterFields, StatusFields

# Set by set_condition() and observe_generation().
SET_OTHERWISE = {"conditions", "observed_generation"}


def test_every_field_of_a_status_can_be_set() -> None:
    assert StatusFields.__annotations__.keys() == Status.model_fields.keys() - SET_OTHERWISE


def test_every_field_of_a_cluster_but_its_name_can_be_set() -> None:
    assert ClusterFields.__annotations__.keys() == Cluster.model_fields.keys() - {"name"}
