"""The operator's settings, from environment variables that the chart sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import Limits


class SettingsError(Exception):
    """An environment variable is missing or invalid. The chart sets all of them."""


@dataclass(frozen=True)
class Settings:
    """The settings of this installation.

    Attributes:
        pods: namespace and labels of the operator's own pods, which network policies admit.
        key_secret: name of the Secret with the signing key, in the operator's namespace.
        worker: the image of samplings without spec.image.
        namespaces: the watched namespaces; empty for all.
        limits: what samplings may use, and how many may run at once.
        metrics_host: the address that metrics are served on: localhost or all.
        templates: folder with the administrator's replacements of templates; None without any.
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
            SettingsError: with the name of the variable.
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
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set: install the operator with the chart, which sets it")
    return value


def _json(environment: Mapping[str, str], name: str) -> object:
    try:
        value: object = json.loads(_text(environment, name))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{name} is not valid JSON: {error}") from error
    return value


def _labels(environment: Mapping[str, str], name: str) -> dict[str, str]:
    labels = _json(environment, name)
    if not isinstance(labels, dict) or not labels:
        raise SettingsError(f"{name} must be a JSON object with the labels of the operator's pods")
    return {str(key): str(label) for key, label in labels.items()}


def _names(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    names = _json(environment, name)
    if not isinstance(names, list) or not all(isinstance(it, str) and it for it in names):
        raise SettingsError(f"{name} must be a JSON list of non-empty strings")
    return tuple(names)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = _text(environment, name)
    if text not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false")
    return text == "true"


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Returns None for 0, which means unlimited."""
    text = _text(environment, name)
    if not text.isdecimal():
        raise SettingsError(f"{name} must be a number; 0 means unlimited")
    return int(text) or None
