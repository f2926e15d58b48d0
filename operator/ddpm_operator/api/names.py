"""String types for Kubernetes names, label keys and label values, with the limits of Kubernetes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ddpm_operator.api.rules import KeysMatch, Matches
from ddpm_operator.api.uri import SUBDOMAIN

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:{SUBDOMAIN}/)?{_NAME}"
_KEY_MESSAGE = (
    "a key must be a name of at most 63 letters, digits, -, _ and ., optionally prefixed with a DNS subdomain and a "
    "slash: example.com/name"
)

KEYS = KeysMatch(_KEY_MESSAGE, _KEY)
QualifiedName = Annotated[str, Field(min_length=1, max_length=317), Matches(_KEY_MESSAGE, _KEY)]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Matches("a name must consist of a-z, 0-9, - and ., and must start and end with a letter or digit", SUBDOMAIN),
]
ResourceName = Annotated[
    str,
    Field(min_length=1, max_length=317),
    Matches("a GPU resource name must include its domain, such as nvidia.com/gpu", rf"{SUBDOMAIN}/{_NAME}"),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    Matches(
        "a label value must consist of at most 63 letters, digits, -, _ and ., and must start and end with a letter "
        "or digit",
        rf"(?:{_NAME})?",
    ),
]
