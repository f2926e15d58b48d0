"""Formatting, redaction and truncation of text for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_operator.text import LOG_TAIL_BYTES, as_sentence, clip, count, duration, log_tail, printable, redact


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m00s"), (130, "2m10s"), (11_100, "3h05m"), (187_200, "2d04h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "AWS_SECRET_ACCESS_KEY=hunter2",
        'export AWS_SESSION_TOKEN="hunter2"',
        '{"auth_token": "hunter2"}',
        "https://me:hunter2@example.com/x",
        "Authorization: Bearer hunter2",
        "GET /x?X-Amz-Signature=hunter2&y=1",
        "password: hunter2",
    ],
)
def test_credentials_are_redacted(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize("text", ["s3://models/unet.pt", "batch 64 of 100", "The token bucket is full"])
def test_ordinary_text_is_not_redacted(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "figures",
    [
        "requested: secrets=1, used: secrets=10, limited: secrets=10",
        "requested: count/secrets=1,pods=2, used: count/secrets=3,pods=4, limited: count/secrets=3,pods=5",
        "requested: limits.memory=4Gi,requests.example.com/token-gpu=1, used: limits.memory=1500m",
        "requested: api-key.storageclass.storage.k8s.io/requests.storage=10Gi, used: secrets=0, limited: secrets=0",
    ],
)
def test_figures_of_a_quota_are_not_redacted(figures: str) -> None:
    text = f'secrets "x" is forbidden: exceeded quota: team, {figures}'
    assert redact(text) == text


@pytest.mark.parametrize("text", ["requested: password=hunter2", "used: pods=1,token=hunter2", "secrets=12345678"])
def test_what_only_resembles_figures_is_redacted(text: str) -> None:
    assert redact(text).endswith("=[redacted]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[36m(worker)\x1b[0m starts", "(worker) starts"),
        ("\x1b]0;another title\x07", "]0;another title"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x9b31mred", "31mred"),
        ("first\r\nsecond\tcolumn", "first\nsecond\tcolumn"),
        ("abc\x08\x08\x08xyz\x7f\x00", "abcxyz"),
        ("gnp.\u202egpj", "gnp.gpj"),
        ("größer ≥ 3 👾", "größer ≥ 3 👾"),
    ],
)
def test_control_sequences_are_removed(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert redact(text) == shown
    assert clip(text, 99) == shown
    assert log_tail(text) == shown


def test_credentials_with_control_characters_are_redacted() -> None:
    assert redact("pass\x00word=\x1b[1mhunter2") == "password=[redacted]"


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        *("password", "secret-", "api_key", "://", "bearer", 'token"', "AKIA", "\x1b[0;0;0;"),
        *("used: ", "used: a=1,", "used: a", "a=1,"),
    ],
)
def test_redaction_takes_linear_time(text: str) -> None:
    """A pattern with quadratic time takes five minutes for half a megabyte."""
    repeated = text * ((1 << 19) // len(text))
    assert redact(repeated)[:1000] == printable(repeated)[:1000]


@given(st.text())
def test_a_log_tail_is_the_end_within_the_limit(log: str) -> None:
    tail = log_tail(log)
    assert len(tail.encode()) <= LOG_TAIL_BYTES
    assert redact(log).rstrip().endswith(tail)


def test_a_log_tail_starts_with_a_whole_line() -> None:
    assert log_tail("first line\n" + "x" * (LOG_TAIL_BYTES - 1) + "\n") == "x" * (LOG_TAIL_BYTES - 1)
    assert log_tail("first line\n" + "x" * 3000) == "x" * LOG_TAIL_BYTES


def test_clipped_text_ends_with_an_ellipsis() -> None:
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the disk is full ", "The disk is full."),
        ("Really?", "Really?"),
        ("unet.pt is damaged", "unet.pt is damaged."),
        ("s3://models cannot be read", "s3://models cannot be read."),
        ("downs: too few", "Downs: too few."),
    ],
)
def test_messages_become_sentences(text: str, expected: str) -> None:
    assert as_sentence(text) == expected


def test_counted_nouns() -> None:
    assert (count(1, "sample"), count(2000, "sample")) == ("1 sample", "2,000 samples")
