"""Kubernetes resource quantities, such as ``500m`` CPUs or ``4Gi`` of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ddpm_operator.api.rules import VALIDATIONS, ValueRule

_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<power>[+-]?[0-9]{1,2}))?"
)
_DECIMAL_EXPONENTS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_EXPONENTS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_MAX_LENGTH = 32


def parse(text: str) -> Decimal:
    """Returns the number that a quantity stands for.

    Raises:
        ValueError: if the text is not a valid quantity.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or len(text) > _MAX_LENGTH:
        raise ValueError(f"{text!r} is not a valid quantity")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY_EXPONENTS:
        return number * (1 << _BINARY_EXPONENTS[suffix])
    return number.scaleb(int(match["power"] or _DECIMAL_EXPONENTS.get(suffix, 0)))


def binary(number: int) -> str:
    """Returns a number of bytes as a quantity, exactly, in the largest binary unit that divides it."""
    for suffix, power in reversed(_BINARY_EXPONENTS.items()):
        if number and number % 2**power == 0:
            return f"{number >> power}{suffix}"
    return str(number)


@dataclass(frozen=True)
class Quantity(ValueRule):
    """A quantity in a range, given as a string or an integer; for ``Annotated[str, …]``.

    Attributes:
        minimum, maximum: the bounds, both inclusive.
    """

    minimum: str
    maximum: str

    @property
    def cel(self) -> str:
        value = "quantity(string(self))"
        low, high = f"quantity('{self.minimum}')", f"quantity('{self.maximum}')"
        return f"isQuantity(string(self)) && {value}.compareTo({low}) >= 0 && {value}.compareTo({high}) <= 0"

    def holds(self, value: object) -> bool:
        try:
            return parse(self.minimum) <= parse(str(value)) <= parse(self.maximum)
        except ValueError:
            return False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        checked = super().__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_before_validator_function(_int_to_str, checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": _MAX_LENGTH,
            VALIDATIONS: [{"rule": self.cel, "message": self.message}],
        }


def _int_to_str(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
