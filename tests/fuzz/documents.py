"""Mutations that leave a document JSON: bytes at random would hardly ever come past the parser."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import atheris

ODD = (
    *(None, True, False, -1, 0, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**4000, 0.5, -0.0, 1e300),
    *(
        float("inf"),
        float("nan"),
        "",
        "0" * 64,
        "a" * 3000,
        "../../etc/passwd",
        "\0",
        "\ud800",
        "é👾",
        "1",
        "null",
    ),
    *({}, [], [[]], {"": {}}, [0] * 300),
)
TEXTS = (b'{"a":' * 3000, b"[" * 3000, b"9" * 5000, b"\xef\xbb\xbf", b"\xff\xfe", b"NaN", b'"\\ud800"', b"\n{")


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """A value of the document put in place of another, left out, or doubled; or any change of bytes."""
    dice = random.Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not document or not isinstance(document, dict | list) or dice.random() < 0.3:
        return atheris.Mutate(data, most)
    if dice.random() < 0.05:
        at = dice.randrange(len(data))
        return (data[:at] + dice.choice(TEXTS) + data[at:])[:most]
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        _change(dice, document, most)
    changed = json.dumps(document, ensure_ascii=dice.random() < 0.5).encode(errors="surrogatepass")
    return changed if len(changed) <= most else atheris.Mutate(data, most)


def _place(dice: random.Random, document: Any) -> tuple[Any, Any]:  # noqa: ANN401 - as JSON has them
    """A container and one of its keys; what lies high is as likely as what is many."""
    while True:
        key = dice.choice(list(document) if isinstance(document, dict) else range(len(document)))
        inner = document[key]
        if not inner or not isinstance(inner, dict | list) or dice.random() < 0.4:
            return document, key
        document = inner


def _change(dice: random.Random, document: Any, most: int) -> None:  # noqa: ANN401 - as JSON has them
    if not document:
        return
    within, key = _place(dice, document)
    match dice.randrange(6):
        case 0:
            del within[key]
        case 1 if isinstance(within, list):
            within.append(copy.deepcopy(within[key]))
        case 1:
            within[f"{key}_"] = copy.deepcopy(within[key])
        case 2:
            other, there = _place(dice, document)
            if not isinstance(other[there], dict | list):
                within[key] = other[there]
        case 3 if isinstance(within[key], int):
            within[key] += dice.choice((-1, 1, 64, -64, 2**16))
        case 3 | 4 if isinstance(within[key], str) and within[key].startswith("{"):  # a document in a document
            within[key] = mutate(within[key].encode(errors="replace"), most, dice.randrange(2**32)).decode(
                errors="replace"
            )
        case _:
            within[key] = copy.deepcopy(dice.choice(ODD))
