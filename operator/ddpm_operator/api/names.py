"""Names of Kubernetes, as types with their limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ddpm_operator.api.rules import KeysMatch, Matches
from ddpm_operator.api.uri import SUBDOMAIN

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:{SUBDOMAIN}/)?{_NAME}"
_KEY_SENTENCE = "a key is a name of at most 63 letters, digits, -, _ and ., perhaps after a domain: example.com/name"

KEYS = KeysMatch(_KEY_SENTENCE, _KEY)
QualifiedName = Annotated[str, Field(min_length=1, max_length=317), Matches(_KEY_SENTENCE, _KEY)]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Matches("a name has only a-z, 0-9, - and ., and begins and ends with a letter or digit", SUBDOMAIN),
]
ResourceName = Annotated[
    str,
    Field(min_length=1, max_length=317),
    Matches("a GPU resource is named with its domain, such as nvidia.com/gpu", rf"{SUBDOMAIN}/{_NAME}"),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    Matches(
        "a label's value has at most 63 letters, digits, -, _ and ., and begins and ends with a letter or digit",
        rf"(?:{_NAME})?",
    ),
]
