"""The DDPMSampling as a Kubernetes object."""

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
LONGEST_NAME = 63


class Metadata(BaseModel):
    """Of an object's metadata, what the operator looks at; the API server owns the rest."""

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
    """N images of a trained diffusion model, drawn on a RayCluster that exists only as long as it is needed."""

    api_version: Literal["ddpm-ray.io/v1alpha1"]
    kind: Literal["DDPMSampling"]
    metadata: Metadata
    spec: Spec = Field(description="What is asked for.")
    status: Status | None = Field(default=None, description="What the operator has seen and done.")

    @rule(
        f"size(self.metadata.name) <= {LONGEST_NAME}",
        f"metadata.name can have at most {LONGEST_NAME} characters: the pods carry it as a label",
        field="metadata.name",
    )
    def _name_fits_a_label(self) -> bool:
        return len(self.metadata.name) <= LONGEST_NAME
