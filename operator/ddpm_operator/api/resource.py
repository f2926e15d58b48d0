"""The DDPMSampling as a Kubernetes object: group, version, names, metadata, spec and status."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ddpm_operator.api.model import Model
from ddpm_operator.api.names import ObjectName
from ddpm_operator.api.rules import rule
from ddpm_operator.api.spec import Spec
from ddpm_operator.api.status import Status

GROUP, VERSION, KIND = "ddpm-ray.io", "v1alpha1", "DDPMSampling"
PLURAL, SINGULAR, SHORT_NAME, CATEGORY = "ddpmsamplings", "ddpmsampling", "ddpm", "all"
MAX_NAME_LENGTH = 63


class Metadata(BaseModel):
    """The metadata fields that the operator reads; all others are ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    name: ObjectName
    namespace: str = "default"
    uid: str = ""
    resource_version: str = ""
    generation: Annotated[int, Field(ge=0)] = 0
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None


class DDPMSampling(Model):
    """DDPMSampling draws images from a trained diffusion model, in parallel, on a RayCluster of its own.

    The operator creates the RayCluster for the job and deletes it when the job ends.
    """

    api_version: Literal["ddpm-ray.io/v1alpha1"]
    kind: Literal["DDPMSampling"]
    metadata: Metadata
    spec: Spec = Field(description="The desired state of the sampling.")
    status: Status | None = Field(
        default=None, description="The observed state of the sampling, written by the operator."
    )

    @rule(
        f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
        f"metadata.name must be no more than {MAX_NAME_LENGTH} characters, because the pods carry it as a label value",
        field="metadata.name",
    )
    def _name_fits_a_label(self) -> bool:
        return len(self.metadata.name) <= MAX_NAME_LENGTH
