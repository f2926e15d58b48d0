"""The secrets of an attempt: the same for whoever has the key, another for every purpose, sampling and attempt."""

from __future__ import annotations

import re

from ddpm_operator.manifests.tokens import attempt_tokens

KEY = bytes(range(32))


def test_an_operator_that_was_restarted_makes_the_same_tokens() -> None:
    assert attempt_tokens(KEY, "uid", 1) == attempt_tokens(bytes(KEY), "uid", 1)


def test_no_token_opens_another_door() -> None:
    asked = [
        attempt_tokens(key, uid, attempt)
        for key in (KEY, KEY[::-1])
        for uid in ("uid", "uid|1")
        for attempt in (1, 2, 11)
    ]
    tokens = [token for one in asked for token in (one.ray, one.progress, one.suffix)]
    assert len(set(tokens)) == len(tokens)


def test_the_name_of_the_secret_is_known_only_to_who_has_the_key() -> None:
    names = {attempt_tokens(key, "uid", 2).secret_name("digits-1a2b3c4d-2") for key in (KEY, KEY[::-1])}
    assert len(names) == 2
    for name in names:
        assert re.fullmatch(r"digits-1a2b3c4d-2-[0-9a-f]{16}", name)


def test_a_token_is_text_that_a_header_can_carry() -> None:
    tokens = attempt_tokens(KEY, "uid", 1)
    assert {len(tokens.ray), len(tokens.progress)} == {64}
    assert int(tokens.ray, 16) != int(tokens.progress, 16)
