"""What an installation decides for the operator, from environment variables that the chart sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddpm_operator.observed import WorkerImage
from ddpm_operator.render import OperatorPods


class SettingsFault(Exception):
    """A variable is missing or wrong; the chart sets all of them."""


@dataclass(frozen=True)
class Settings:
    """How this operator is installed.

    Attributes:
        pods: the operator's own, which network policies let in.
        key_secret: name of the Secret with its key, in its own namespace.
        worker: for samplings that name no image.
        templates: a folder with an administrator's replacements, if there are any.
    """

    pods: OperatorPods
    key_secret: str
    worker: WorkerImage
    templates: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads OPERATOR_NAMESPACE, _LABELS (JSON) and _KEY_SECRET, WORKER_IMAGE, RAY_VERSION and TEMPLATES.

        Raises:
            SettingsFault: with the variable's name.
        """

        def value(name: str) -> str:
            found = environment.get(name, "")
            if not found:
                raise SettingsFault(f"{name} is not set: install the operator with the chart, which sets it")
            return found

        try:
            labels = json.loads(value("OPERATOR_LABELS"))
        except json.JSONDecodeError as error:
            raise SettingsFault(f"OPERATOR_LABELS is no JSON: {error}") from error
        if not isinstance(labels, dict) or not labels:
            raise SettingsFault("OPERATOR_LABELS has to be an object with the labels of the operator's own pods")
        templates = environment.get("TEMPLATES")
        return cls(
            pods=OperatorPods(
                value("OPERATOR_NAMESPACE"), {str(key): str(label) for key, label in labels.items()}
            ),
            key_secret=value("OPERATOR_KEY_SECRET"),
            worker=WorkerImage(value("WORKER_IMAGE"), value("RAY_VERSION")),
            templates=Path(templates) if templates else None,
        )
