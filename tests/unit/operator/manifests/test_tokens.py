"""Tokens of an attempt: deterministic for a signing key, and different for each purpose, sampling and attempt."""

from __future__ import annotations

import re

from ddpm_operator.manifests.tokens import attempt_tokens

KEY = bytes(range(32))


def test_tokens_are_the_same_after_a_restart() -> None:
    assert attempt_tokens(KEY, "uid", 1) == attempt_tokens(bytes(KEY), "uid", 1)


def test_tokens_differ_by_key_uid_attempt_and_purpose() -> None:
    derived = [
        attempt_tokens(key, uid, attempt)
        for key in (KEY, KEY[::-1])
        for uid in ("uid", "uid|1")
        for attempt in (1, 2, 11)
    ]
    tokens = [token for one in derived for token in (one.ray, one.progress, one.suffix)]
    assert len(set(tokens)) == len(tokens)


def test_secret_name_depends_on_the_signing_key() -> None:
    names = {attempt_tokens(key, "uid", 2).secret_name("digits-1a2b3c4d-2") for key in (KEY, KEY[::-1])}
    assert len(names) == 2
    for name in names:
        assert re.fullmatch(r"digits-1a2b3c4d-2-[0-9a-f]{16}", name)


def test_tokens_are_hex_strings() -> None:
    tokens = attempt_tokens(KEY, "uid", 1)
    assert {len(tokens.ray), len(tokens.progress)} == {64}
    assert int(tokens.ray, 16) != int(tokens.progress, 16)
