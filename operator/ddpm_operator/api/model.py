"""The base class of all API types: frozen, strict, with the camelCase field names of YAML."""

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
    """Returns the YAML name of a field."""
    return _ACRONYMS.get(name) or to_camel(name)


class Model(BaseModel):
    """The base class of all API types. Unknown fields are rejected, so that a typo is never ignored.

    Attributes:
        rules: validation rules over several fields, in the order of their definition.
        transitions: rules that compare an update with the stored object; only the API server sees both versions.
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
        declared = (value.__dict__.get("rule") for value in vars(cls).values() if callable(value))
        cls.rules = (*cls.rules, *(rule for rule in declared if isinstance(rule, Rule)))

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [rule for rule in self.rules if not getattr(self, rule.method)()]
        if broken:
            message = "; ".join(rule.message for rule in broken)
            raise PydanticCustomError("rule", "{message}", {"message": message, "field": broken[0].field})
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
        """Parses a decoded YAML or JSON object by its YAML field names, as strictly as the API server does.

        Raises:
            pydantic.ValidationError: listing every invalid field.
        """
        return cls.model_validate_json(json.dumps(document), by_alias=True, by_name=False)

    def to_document(self) -> dict[str, JsonValue]:
        """Returns the object for YAML and the API; absent fields are omitted."""
        document: dict[str, JsonValue] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return document
