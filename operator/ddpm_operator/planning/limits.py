"""What an administrator lets samplings name, and how many of them may be at work at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ddpm_operator.api import Spec
from ddpm_operator.api.pod_overrides import PodOverrides
from ddpm_operator.planning.image_reference import repository

ANY = "*"
PLAIN_WORDS = "plain words"

# The API has it, and no driver reads it yet.
_RESERVED = "gs"

# Programs name the keys that they obey by a domain, or with dots. This one's has neither: by it a pod gets one of
# Azure's identities.
_NO_PLAIN_WORD = "aadpodidbinding"


@dataclass(frozen=True)
class LimitViolation:
    """What a sampling names and may not.

    Attributes:
        message: the field, what it says and what it may say.
        hint: what to do about it.
    """

    message: str
    hint: str


@dataclass(frozen=True)
class Limits:
    """Lists of what is allowed, in each of which ``*`` allows everything; and numbers, where None is any.

    Attributes:
        images: a repository, with any tag or digest; one tag or digest of it; or, with a slash at its end, all
            repositories below a name.
        default_image: what samplings run that name none; who names just that gets it, too.
        service_accounts: names, in the sampling's own namespace. Pods without one get the namespace's default.
        priority_classes: names. Pods without one get the cluster's default.
        runtime_classes: names. Pods without one get the nodes' default.
        gpu_resource_names: of spec.resources.gpuResourceName where there are GPUs.
        pod_labels, pod_annotations: a key; a domain with its slash, for every key of it; or `PLAIN_WORDS`, for
            keys without a dot or a slash.
        uri_schemes: of spec.model.uri and spec.output.uri, such as ``s3``.
        key_secret: name of the Secret with the operator's own key, which no sampling may name as its credentials.
        cloud_identity: where a bucket is named without credentials, pods may be what their node is at its cloud.
        at_once: samplings at work at the same time, at least 1.
        at_once_per_namespace: those of one namespace, at least 1.
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

    def objection(self, spec: Spec) -> LimitViolation | None:
        """The first thing in a spec that is not allowed; None if all is."""
        return next(self._objections(spec), None)

    def _objections(self, spec: Spec) -> Iterator[LimitViolation]:
        if spec.credentials_secret_ref and spec.credentials_secret_ref.name == self.key_secret:
            yield LimitViolation(
                f"spec.credentialsSecretRef names {self.key_secret}, which is the operator's own key.",
                "Name the Secret with your bucket's credentials; one of this very name needs another.",
            )
        image = spec.image
        if image and image != self.default_image and not any(_matches(image, allowed) for allowed in self.images):
            yield _objection("spec.image", image, "images", self.images)
        pods = spec.pod_overrides or PodOverrides()
        for field, name, value, allowed in (
            ("serviceAccountName", pods.service_account_name, "serviceAccounts", self.service_accounts),
            ("priorityClassName", pods.priority_class_name, "priorityClasses", self.priority_classes),
            ("runtimeClassName", pods.runtime_class_name, "runtimeClasses", self.runtime_classes),
        ):
            if name and not _is_among(name, allowed):
                yield _objection(f"spec.podOverrides.{field}", name, value, allowed)
        for field, said, value, keys in (
            ("labels", pods.labels, "podLabels", self.pod_labels),
            ("annotations", pods.annotations, "podAnnotations", self.pod_annotations),
        ):
            for key in said or ():
                if not any(_is_key(key, allowed) for allowed in keys):
                    yield _objection(f"spec.podOverrides.{field}", key, value, keys)
        gpu = spec.resources.gpu_resource_name
        if spec.resources.gpus and not _is_among(gpu, self.gpu_resource_names):
            yield _objection("spec.resources.gpuResourceName", gpu, "gpuResourceNames", self.gpu_resource_names)
        for field, uri in (("spec.model.uri", spec.model.uri), ("spec.output.uri", spec.output.uri)):
            scheme = (uri or "").partition("://")[0]
            if scheme == _RESERVED:
                yield LimitViolation(
                    f"{field} says {scheme}://, which is reserved: no driver reads it yet.",
                    "Bring the checkpoint to s3://, https:// or a claim, as `kubectl ddpm submit --model_path "
                    "FILE` does, and name it in a new DDPMSampling.",
                )
            elif scheme and not _is_among(scheme, self.uri_schemes):
                yield _objection(field, f"{scheme}://", "uriSchemes", self.uri_schemes)


UNLIMITED = Limits()


def _is_among(name: str, allowed: tuple[str, ...]) -> bool:
    return not {name, ANY}.isdisjoint(allowed)


def _is_key(key: str, allowed: str) -> bool:
    if allowed == PLAIN_WORDS:
        return re.fullmatch(r"[-\w]+", key, re.ASCII) is not None and key != _NO_PLAIN_WORD
    return allowed in (ANY, key) or (allowed.endswith("/") and key.startswith(allowed))


def _matches(image: str, allowed: str) -> bool:
    if allowed in (ANY, image):
        return True
    if allowed.endswith("/"):
        return repository(image).startswith(repository(f"{allowed}x").removesuffix("x"))
    has_tag_or_digest = "@" in allowed or ":" in allowed.rpartition("/")[2]
    return not has_tag_or_digest and repository(image) == repository(allowed)


def _objection(field: str, said: str, value: str, allowed: tuple[str, ...]) -> LimitViolation:
    instead = f"allowed are {', '.join(allowed)}" if allowed else "none is allowed"
    return LimitViolation(
        f"{field} says {said}, which the administrator of this operator does not allow: {instead}.",
        "Say something else there, in a new DDPMSampling where the field is immutable; or ask the administrator "
        f"to extend the chart's value allowed.{value}, then run `kubectl ddpm retry`.",
    )
