"""Validation rules, each in CEL for the API server and in Python for clients without one.

Both forms are defined side by side so that they change together, and the tests apply both to the same resources.
Every rule carries the error message that users see.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """A validation rule over several fields of an object.

    Attributes:
        cel: the CEL expression, true for a valid object; `self` is the object.
        message: the error message for an invalid object.
        field: the YAML name of the field that the error points at; "" for the object itself.
        method: the name of the method with the Python form; "" for a transition rule, which only the API server can
            evaluate.
    """

    cel: str
    message: str
    field: str = ""
    method: str = ""

    def validation(self) -> dict[str, str]:
        """Returns the entry for ``x-kubernetes-validations``."""
        return {"rule": self.cel, "message": self.message} | ({"fieldPath": f".{self.field}"} if self.field else {})


_M = TypeVar("_M")


def rule(cel: str, message: str, *, field: str = "") -> Callable[[Callable[[_M], bool]], Callable[[_M], bool]]:
    """Declares a rule; the decorated method is its Python form and returns whether the object is valid."""

    def decorate(method: Callable[[_M], bool]) -> Callable[[_M], bool]:
        method.__dict__["rule"] = Rule(cel, message, field, method.__name__)
        return method

    return decorate


@dataclass(frozen=True)
class ValueRule(ABC):
    """A validation rule for one value, for ``Annotated[type, Field(…), rule, …]``.

    Attributes:
        message: the error message for an invalid value.
    """

    message: str

    @property
    @abstractmethod
    def cel(self) -> str:
        """The CEL expression, true for a valid value; `self` is the value."""

    @abstractmethod
    def holds(self, value: object) -> bool:
        """Returns whether the value is valid."""

    def _check(self, value: object) -> object:
        if not self.holds(value):
            raise PydanticCustomError("rule", "{message}", {"message": self.message})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        validation = {"rule": self.cel, "message": self.message}
        return json_schema | {VALIDATIONS: [*json_schema.get(VALIDATIONS, []), validation]}


@dataclass(frozen=True)
class Matches(ValueRule):
    """A string must match a regular expression.

    Attributes:
        pattern: matched against the whole string; uses only syntax that RE2 and Python's re share.
        scheme: the rule applies only to strings with this prefix; "" for all.
    """

    pattern: str
    scheme: str = ""

    @property
    def cel(self) -> str:
        matches = f"self.matches({_literal(self.pattern)})"
        return f"!self.startsWith({json.dumps(self.scheme)}) || {matches}" if self.scheme else matches

    def holds(self, value: object) -> bool:
        text = str(value)
        return not text.startswith(self.scheme) or _matches(self.pattern, text)


@dataclass(frozen=True)
class Avoids(ValueRule):
    """A string must not contain a match of a regular expression.

    Attributes:
        pattern: searched for anywhere in the string.
    """

    pattern: str

    @property
    def cel(self) -> str:
        return f"!self.matches({json.dumps(self.pattern)})"

    def holds(self, value: object) -> bool:
        return re.search(self.pattern, str(value), re.ASCII) is None


@dataclass(frozen=True)
class KeysMatch(ValueRule):
    """Every key of a map must match a regular expression.

    Attributes:
        pattern: matched against the whole key.
    """

    pattern: str

    @property
    def cel(self) -> str:
        return f"self.all(key, key.matches({_literal(self.pattern)}))"

    def holds(self, value: object) -> bool:
        return isinstance(value, dict) and all(_matches(self.pattern, key) for key in value)


@dataclass(frozen=True)
class KeysAvoid(ValueRule):
    """No key of a map may match a regular expression.

    Attributes:
        pattern: matched against the whole key.
    """

    pattern: str

    @property
    def cel(self) -> str:
        return f"!self.exists(key, key.matches({_literal(self.pattern)}))"

    def holds(self, value: object) -> bool:
        return isinstance(value, dict) and not any(_matches(self.pattern, key) for key in value)


def _literal(pattern: str) -> str:
    return json.dumps(f"^(?:{pattern})$")


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None
