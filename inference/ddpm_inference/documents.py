"""What all documents have in common: strict parsing, defaults that are left out, and messages that name the field."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails

from ddpm_inference.errors import InvalidSpec

SHA256_PATTERN = "^[0-9a-f]{64}$"
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]


class StrictModel(BaseModel):
    """A frozen document that rejects unknown fields, so that a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Parses and validates the document from JSON.

        Args:
            where: names the source of the text in the error message.

        Raises:
            InvalidSpec: naming every field that is invalid.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidSpec(f"{where} is not valid: {format_validation_error(error)}") from error


class CompactModel(StrictModel):
    """A document whose newer fields are absent from its JSON where they have their default.

    A field that is added later therefore changes neither stored documents nor fingerprints that do not use it.

    Attributes:
        omitted_at_default: the names of these fields.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _omit_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        for name in self.omitted_at_default:
            if getattr(self, name) == type(self).model_fields[name].default:
                document.pop(name, None)
        return document


def format_validation_error(error: ValidationError) -> str:
    """Returns all errors of a validation on one line, each as ``field.path: message``."""
    return "; ".join(validation_message(item, field_path(item)) for item in error.errors())


def field_path(item: ErrorDetails) -> str:
    """Returns the dotted path of an invalid field, without the tags of unions, which are written ``<tag>``."""
    return ".".join(str(part) for part in item["loc"] if not str(part).startswith("<"))


def validation_message(item: ErrorDetails, field: str) -> str:
    """Returns the message of one validation error.

    Args:
        field: the name of the field or its flag; "" for an error of the whole document.
    """
    match item["type"]:
        case "value_error":
            problem = f": {item['ctx']['error']}"
        case "missing":
            problem = " is missing"
        case "extra_forbidden":
            problem = " is not a known field"
        case "string_too_short" if item["ctx"]["min_length"] == 1:
            problem = " must not be empty"
        case "string_pattern_mismatch" if item["ctx"]["pattern"] == SHA256_PATTERN:
            problem = " must be 64 characters of 0-9 and a-f, as printed by sha256sum"
        case _:
            problem = re.sub("^: [A-Z][a-z]+ should ", " must ", f": {item['msg']}")
    return f"{field}{problem}" if field else problem.lstrip(": ")
