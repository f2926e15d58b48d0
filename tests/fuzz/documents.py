"""Mutations that keep a document valid JSON. Random changes of bytes would hardly ever get past the JSON parser."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import atheris

EDGE_VALUES = (
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
EDGE_BYTES = (b'{"a":' * 3000, b"[" * 3000, b"9" * 5000, b"\xef\xbb\xbf", b"\xff\xfe", b"NaN", b'"\\ud800"', b"\n{")


def mutate(data: bytes, max_length: int, seed: int) -> bytes:
    """Replaces, removes or duplicates values of a JSON document; sometimes changes arbitrary bytes instead."""
    rng = random.Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not document or not isinstance(document, dict | list) or rng.random() < 0.3:
        return atheris.Mutate(data, max_length)
    if rng.random() < 0.05:
        at = rng.randrange(len(data))
        return (data[:at] + rng.choice(EDGE_BYTES) + data[at:])[:max_length]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change(rng, document, max_length)
    changed = json.dumps(document, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    return changed if len(changed) <= max_length else atheris.Mutate(data, max_length)


def _pick(rng: random.Random, document: Any) -> tuple[Any, Any]:  # noqa: ANN401 - any JSON value
    """Picks a container and one of its keys.

    Descends level by level, so that one large array does not draw most of the changes.
    """
    while True:
        key = rng.choice(list(document) if isinstance(document, dict) else range(len(document)))
        value = document[key]
        if not value or not isinstance(value, dict | list) or rng.random() < 0.4:
            return document, key
        document = value


def _change(rng: random.Random, document: Any, max_length: int) -> None:  # noqa: ANN401 - any JSON value
    if not document:
        return
    container, key = _pick(rng, document)
    match rng.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        case 1:
            container[f"{key}_"] = copy.deepcopy(container[key])
        case 2:
            other, other_key = _pick(rng, document)
            if not isinstance(other[other_key], dict | list):
                container[key] = other[other_key]
        case 3 if isinstance(container[key], int):
            container[key] += rng.choice((-1, 1, 64, -64, 2**16))
        case 3 | 4 if isinstance(container[key], str) and container[key].startswith("{"):  # JSON within a string
            container[key] = mutate(container[key].encode(errors="replace"), max_length, rng.randrange(2**32)).decode(
                errors="replace"
            )
        case _:
            container[key] = copy.deepcopy(rng.choice(EDGE_VALUES))
