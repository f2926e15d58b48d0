"""The administrator's limits: which values a spec may contain, and how many samplings may be active at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ddpm_operator.api import Spec
from ddpm_operator.api.pod_overrides import PodOverrides
from ddpm_operator.planning.image_reference import repository

ANY = "*"
PLAIN_WORDS = "plain words"

# The API accepts this scheme, but no driver supports it yet.
_RESERVED_SCHEME = "gs"

# Keys that controllers act on have a domain or dots. This key has neither, and assigns an Azure identity to the pod.
_RESERVED_PLAIN_WORD = "aadpodidbinding"


@dataclass(frozen=True)
class LimitViolation:
    """A value in a spec that the administrator does not allow.

    Attributes:
        message: the field, its value and the allowed values.
        hint: what to do about it.
    """

    message: str
    hint: str


@dataclass(frozen=True)
class Limits:
    """The limits of all samplings. In each list, ``*`` allows every value.

    Attributes:
        images: a repository with any tag or digest; one tag or digest of a repository; or a prefix with a trailing
            slash, for all repositories below it.
        default_image: the image of samplings without spec.image; spec.image may always name it explicitly.
        service_accounts: names in the sampling's namespace. Pods without one get the default of the namespace.
        priority_classes: names. Pods without one get the default of the cluster.
        runtime_classes: names. Pods without one get the default of the node.
        gpu_resource_names: values of spec.resources.gpuResourceName; checked only if gpus is greater than 0.
        pod_labels, pod_annotations: a key; a domain with a trailing slash, for all keys of the domain; or
            `PLAIN_WORDS`, for keys without a dot or a slash.
        uri_schemes: schemes of spec.model.uri and spec.output.uri, such as ``s3``.
        key_secret: the Secret with the operator's signing key, which spec.credentialsSecretRef must not name.
        cloud_identity: whether pods that use a bucket without credentials may use the cloud identity of their node.
        at_once: the maximum number of active samplings, at least 1; None for unlimited.
        at_once_per_namespace: the same for each namespace.
    """

    images: tuple[str, ...] = (ANY,)
    default_image: str = ""
    service_accounts: tuple[str, ...] = (ANY,)
    priority_classes: tuple[str, ...] = (ANY,)
    runtime_classes: tuple[str, ...] = (ANY,)
    gpu_resource_names: tuple[str, ...] = (ANY,)
    pod_labels: tuple[str, ...] = (ANY,)
    pod_annotations: tuple[str, ...] = (ANY,)
    uri_schemes: tuple[str, ...] = (ANY,)
    key_secret: str = ""
    cloud_identity: bool = True
    at_once: int | None = None
    at_once_per_namespace: int | None = None

    def violation(self, spec: Spec) -> LimitViolation | None:
        """Returns the first value of a spec that is not allowed; None if all are."""
        return next(self._violations(spec), None)

    def _violations(self, spec: Spec) -> Iterator[LimitViolation]:
        if spec.credentials_secret_ref and spec.credentials_secret_ref.name == self.key_secret:
            yield LimitViolation(
                f"spec.credentialsSecretRef: the Secret {self.key_secret} holds the operator's signing key.",
                "Name the Secret with your bucket's credentials; if it has this name, create it under another one.",
            )
        image = spec.image
        if image and image != self.default_image and not any(_matches_image(image, pattern) for pattern in self.images):
            yield _not_allowed("spec.image", image, "images", self.images)
        pods = spec.pod_overrides or PodOverrides()
        for field, name, value, allowed in (
            ("serviceAccountName", pods.service_account_name, "serviceAccounts", self.service_accounts),
            ("priorityClassName", pods.priority_class_name, "priorityClasses", self.priority_classes),
            ("runtimeClassName", pods.runtime_class_name, "runtimeClasses", self.runtime_classes),
        ):
            if name and not _is_listed(name, allowed):
                yield _not_allowed(f"spec.podOverrides.{field}", name, value, allowed)
        for field, keys, value, allowed in (
            ("labels", pods.labels, "podLabels", self.pod_labels),
            ("annotations", pods.annotations, "podAnnotations", self.pod_annotations),
        ):
            for key in keys or ():
                if not any(_matches_key(key, pattern) for pattern in allowed):
                    yield _not_allowed(f"spec.podOverrides.{field}", key, value, allowed)
        gpu = spec.resources.gpu_resource_name
        if spec.resources.gpus and not _is_listed(gpu, self.gpu_resource_names):
            yield _not_allowed("spec.resources.gpuResourceName", gpu, "gpuResourceNames", self.gpu_resource_names)
        for field, uri in (("spec.model.uri", spec.model.uri), ("spec.output.uri", spec.output.uri)):
            scheme = (uri or "").partition("://")[0]
            if scheme == _RESERVED_SCHEME:
                yield LimitViolation(
                    f"{field}: {scheme}:// is reserved for future use and not supported yet.",
                    "Copy the checkpoint to s3://, https://, hf:// or a claim (`kubectl ddpm submit --model_path FILE` "
                    "uploads it to a claim), and create a new DDPMSampling.",
                )
            elif scheme and not _is_listed(scheme, self.uri_schemes):
                yield _not_allowed(field, f"{scheme}://", "uriSchemes", self.uri_schemes)


UNLIMITED = Limits()


def _is_listed(name: str, allowed: tuple[str, ...]) -> bool:
    return not {name, ANY}.isdisjoint(allowed)


def _matches_key(key: str, allowed: str) -> bool:
    if allowed == PLAIN_WORDS:
        return re.fullmatch(r"[-\w]+", key, re.ASCII) is not None and key != _RESERVED_PLAIN_WORD
    return allowed in (ANY, key) or (allowed.endswith("/") and key.startswith(allowed))


def _matches_image(image: str, allowed: str) -> bool:
    if allowed in (ANY, image):
        return True
    if allowed.endswith("/"):
        return repository(image).startswith(repository(f"{allowed}x").removesuffix("x"))
    has_tag_or_digest = "@" in allowed or ":" in allowed.rpartition("/")[2]
    return not has_tag_or_digest and repository(image) == repository(allowed)


def _not_allowed(field: str, value: str, chart_value: str, allowed: tuple[str, ...]) -> LimitViolation:
    alternatives = f"Allowed: {', '.join(allowed)}" if allowed else "No value is allowed"
    return LimitViolation(
        f"{field}: {value} is not allowed by the administrator of this operator. {alternatives}.",
        "Use an allowed value, in a new DDPMSampling if the field is immutable; or ask the administrator to add it to "
        f"the chart value allowed.{chart_value}, then run `kubectl ddpm retry`.",
    )
