"""The base of every part of a DDPMSampling: frozen, strict, named as in YAML."""

from __future__ import annotations

import json
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from ddpm_operator.api.rules import VALIDATIONS, Rule

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

_ACRONYMS = {"tasks_per_gpu": "tasksPerGPU"}


def camel(name: str) -> str:
    """A field's name in YAML."""
    return _ACRONYMS.get(name) or to_camel(name)


class Model(BaseModel):
    """A part of a DDPMSampling. Unknown fields are refused, so that a typing error is never ignored.

    Attributes:
        rules: what holds over several fields, in the order of their definition.
        transitions: what must hold from one version of the object to the next; only the API server sees both.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    transitions: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        own = (value.__dict__.get("rule") for value in vars(cls).values() if callable(value))
        cls.rules = (*cls.rules, *(found for found in own if isinstance(found, Rule)))

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [rule for rule in self.rules if not getattr(self, rule.method)()]
        if broken:
            sentence = "; ".join(rule.sentence for rule in broken)
            raise PydanticCustomError("rule", "{sentence}", {"sentence": sentence, "field": broken[0].field})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        validations = [rule.validation() for rule in (*cls.rules, *cls.transitions)]
        if validations:
            handler.resolve_ref_schema(json_schema)[VALIDATIONS] = validations
        return json_schema

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Reads what YAML or the API gave, by the names of YAML and as strictly as the API server.

        Raises:
            pydantic.ValidationError: with every field that is wrong.
        """
        return cls.model_validate_json(json.dumps(document), by_alias=True, by_name=False)

    def to_document(self) -> dict[str, JsonValue]:
        """The form for YAML and the API; what is absent is left out."""
        document: dict[str, JsonValue] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return document
