"""Rules that are said once for two readers: CEL for the API server, Python for whoever has none at hand.

The two forms stand side by side so that nobody changes one alone, and the tests try both on the same resources.
Every rule has a sentence for the person who breaks it.
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
    """A rule over a whole object.

    Attributes:
        cel: true where the rule holds; `self` is the object.
        sentence: what the user reads where it does not.
        field: the YAML name of the field to point at, or "" for the object.
        method: the Python form's name; "" for a rule over old and new, which needs the API server.
    """

    cel: str
    sentence: str
    field: str = ""
    method: str = ""

    def validation(self) -> dict[str, str]:
        """The entry of ``x-kubernetes-validations``."""
        return {"rule": self.cel, "message": self.sentence} | ({"fieldPath": f".{self.field}"} if self.field else {})


_M = TypeVar("_M")


def rule(cel: str, sentence: str, *, field: str = "") -> Callable[[Callable[[_M], bool]], Callable[[_M], bool]]:
    """Makes a model's method, which returns whether the rule holds, the Python form of a rule."""

    def decorate(method: Callable[[_M], bool]) -> Callable[[_M], bool]:
        method.__dict__["rule"] = Rule(cel, sentence, field, method.__name__)
        return method

    return decorate


@dataclass(frozen=True)
class ValueRule(ABC):
    """A rule over one value, for ``Annotated[type, Field(…), rule, …]``.

    Attributes:
        sentence: what the user reads where the rule does not hold.
    """

    sentence: str

    @property
    @abstractmethod
    def cel(self) -> str:
        """True where the rule holds; `self` is the value."""

    @abstractmethod
    def holds(self, value: object) -> bool:
        """The same in Python."""

    def _check(self, value: object) -> object:
        if not self.holds(value):
            raise PydanticCustomError("rule", "{sentence}", {"sentence": self.sentence})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        validation = {"rule": self.cel, "message": self.sentence}
        return json_schema | {VALIDATIONS: [*json_schema.get(VALIDATIONS, []), validation]}


@dataclass(frozen=True)
class Matches(ValueRule):
    """The form of a text.

    Attributes:
        pattern: of the whole text, in what RE2 and Python's re have in common.
        scheme: the rule is about texts that begin so, and leaves others alone.
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
    """What a text may not have in it.

    Attributes:
        pattern: of the part that is refused.
    """

    pattern: str

    @property
    def cel(self) -> str:
        return f"!self.matches({json.dumps(self.pattern)})"

    def holds(self, value: object) -> bool:
        return re.search(self.pattern, str(value), re.ASCII) is None


@dataclass(frozen=True)
class KeysMatch(ValueRule):
    """The form of every key of a map, and what no key may look like.

    Attributes:
        pattern: of a whole key.
    """

    pattern: str

    @property
    def cel(self) -> str:
        return f"self.all(key, key.matches({_literal(self.pattern)}))"

    def holds(self, value: object) -> bool:
        return isinstance(value, dict) and all(_matches(self.pattern, key) for key in value)


@dataclass(frozen=True)
class KeysAvoid(ValueRule):
    """Keys that a map may not have.

    Attributes:
        pattern: of a whole key that is refused.
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
