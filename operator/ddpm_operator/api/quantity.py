"""Kubernetes quantities: ``500m`` CPUs, ``4Gi`` of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ddpm_operator.api.rules import VALIDATIONS, ValueRule

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<power>[+-]?[0-9]{1,2}))?"
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LONGEST = 32


def parse(text: str) -> Decimal:
    """The number a quantity stands for.

    Raises:
        ValueError: if it is none.
    """
    match = _FORM.fullmatch(text)
    if match is None or len(text) > _LONGEST:
        raise ValueError(f"{text!r} is no quantity")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    return number.scaleb(int(match["power"] or _DECIMAL.get(suffix, 0)))


def binary(number: int) -> str:
    """Bytes as a quantity, exact, in the largest unit that divides them."""
    for suffix, power in reversed(_BINARY.items()):
        if number and number % 2**power == 0:
            return f"{number >> power}{suffix}"
    return str(number)


@dataclass(frozen=True)
class Quantity(ValueRule):
    """A quantity from `least` to `most`, written as a text or as a whole number; for ``Annotated[str, …]``."""

    least: str
    most: str

    @property
    def cel(self) -> str:
        value = "quantity(string(self))"
        least, most = f"quantity('{self.least}')", f"quantity('{self.most}')"
        return f"isQuantity(string(self)) && {value}.compareTo({least}) >= 0 && {value}.compareTo({most}) <= 0"

    def holds(self, value: object) -> bool:
        try:
            return parse(self.least) <= parse(str(value)) <= parse(self.most)
        except ValueError:
            return False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        checked = super().__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_before_validator_function(_as_text, checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": _LONGEST,
            VALIDATIONS: [{"rule": self.cel, "message": self.sentence}],
        }


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
