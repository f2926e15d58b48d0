"""What an installation decides for the operator, from environment variables that the chart sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import Limits


class SettingsError(Exception):
    """A variable is missing or wrong; the chart sets all of them."""


@dataclass(frozen=True)
class Settings:
    """How this operator is installed.

    Attributes:
        pods: the operator's own, which network policies let in.
        key_secret: name of the Secret with its key, in its own namespace.
        worker: for samplings that name no image.
        namespaces: those that are watched; empty for all.
        limits: what samplings may name, and how many may be at work.
        metrics_host: the address at which they are served: the pod's own only, or all.
        templates: a folder with an administrator's replacements, if there are any.
    """

    pods: OperatorPods
    key_secret: str
    worker: WorkerImage
    namespaces: tuple[str, ...]
    limits: Limits
    metrics_host: str
    templates: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the variables that the chart's deployment.yaml sets.

        Raises:
            SettingsFault: with the variable's name.
        """
        templates = environment.get("TEMPLATES")
        key_secret = _text(environment, "OPERATOR_KEY_SECRET")
        worker = WorkerImage(
            _text(environment, "WORKER_IMAGE"),
            _text(environment, "RAY_VERSION"),
            _text(environment, "WORKER_PULL_POLICY"),
        )
        return cls(
            pods=OperatorPods(_text(environment, "OPERATOR_NAMESPACE"), _labels(environment, "OPERATOR_LABELS")),
            key_secret=key_secret,
            worker=worker,
            namespaces=_names(environment, "WATCH_NAMESPACES"),
            limits=Limits(
                images=_names(environment, "ALLOWED_IMAGES"),
                default_image=worker.reference,
                service_accounts=_names(environment, "ALLOWED_SERVICE_ACCOUNTS"),
                priority_classes=_names(environment, "ALLOWED_PRIORITY_CLASSES"),
                runtime_classes=_names(environment, "ALLOWED_RUNTIME_CLASSES"),
                gpu_resource_names=_names(environment, "ALLOWED_GPU_RESOURCE_NAMES"),
                pod_labels=_names(environment, "ALLOWED_POD_LABELS"),
                pod_annotations=_names(environment, "ALLOWED_POD_ANNOTATIONS"),
                uri_schemes=_names(environment, "ALLOWED_URI_SCHEMES"),
                key_secret=key_secret,
                cloud_identity=_flag(environment, "ALLOWED_CLOUD_IDENTITY"),
                at_once=_number(environment, "AT_ONCE"),
                at_once_per_namespace=_number(environment, "AT_ONCE_PER_NAMESPACE"),
            ),
            metrics_host=_text(environment, "METRICS_HOST"),
            templates=Path(templates) if templates else None,
        )


def _text(environment: Mapping[str, str], name: str) -> str:
    found = environment.get(name, "")
    if not found:
        raise SettingsError(f"{name} is not set: install the operator with the chart, which sets it")
    return found


def _json(environment: Mapping[str, str], name: str) -> object:
    try:
        value: object = json.loads(_text(environment, name))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{name} is no JSON: {error}") from error
    return value


def _labels(environment: Mapping[str, str], name: str) -> dict[str, str]:
    labels = _json(environment, name)
    if not isinstance(labels, dict) or not labels:
        raise SettingsError(f"{name} has to be an object with the labels of the operator's own pods")
    return {str(key): str(label) for key, label in labels.items()}


def _names(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    names = _json(environment, name)
    if not isinstance(names, list) or not all(isinstance(one, str) and one for one in names):
        raise SettingsError(f"{name} has to be a list of texts, as the chart writes it")
    return tuple(names)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = _text(environment, name)
    if text not in ("true", "false"):
        raise SettingsError(f"{name} has to be true or false, as the chart writes it")
    return text == "true"


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """None for 0, which the chart writes for any number."""
    text = _text(environment, name)
    if not text.isdecimal():
        raise SettingsError(f"{name} has to be a number, as the chart writes it; 0 stands for any")
    return int(text) or None
