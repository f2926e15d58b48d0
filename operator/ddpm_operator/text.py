"""Words and figures for people, within the limits of the status."""

from __future__ import annotations

import re

MAX_MESSAGE_LENGTH = 2048
MAX_HINT_LENGTH = 1024
LOG_TAIL_BYTES = 2048

# Texts come from whoever writes a driver: a repeat that may fail is bounded, or 64 KiB of one word that is looked
# for would hold the operator up for seconds.
_SECRETS = (
    (re.compile(r"(://)[^/@\s]+@"), r"\1[redacted]@"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]+"), r"\1 [redacted]"),
    (re.compile(r"(?i)((?:secret|token|password|passwd|signature|credential|api_?key|access_?key)[\w-]{0,64}\"?\s*[=:]\s*)"
                r"(\"[^\"]*\"|'[^']*'|[^\s,;&]+)"), r"\1[redacted]"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "[redacted]"),
)  # fmt: skip


# What a terminal obeys: sequences that set colours and the like, other characters that cannot be seen, and those
# that turn the direction of what follows.
_ORDERS = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Takes out what would make a terminal do something; line breaks and tabs stay."""
    return _ORDERS.sub("", text)


def redact(text: str) -> str:
    """Takes out what looks like a credential, and what is not `printable`.

    Statuses and events are read by more people than secrets are, and most often on a terminal.
    """
    text = printable(text)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def clip(text: str, longest: int) -> str:
    """The beginning of a text as far as it is `printable`, and a sign that there was more."""
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def log_tail(log: str) -> str:
    """The end of a log, redacted: whole lines of at most 2 KiB in all, or the end of the last line."""
    lines = redact(log).rstrip().encode()[-LOG_TAIL_BYTES - 1 :]
    if len(lines) > LOG_TAIL_BYTES:
        lines = lines[1:] if b"\n" not in lines else lines[lines.index(b"\n") + 1 :]
    return lines.decode(errors="ignore")


def as_sentence(text: str) -> str:
    """A message from elsewhere as a sentence: a capital at its beginning, if that is a word, and a full stop."""
    text = re.sub(r"^[a-z]+(?=[\s,;:])", lambda word: word[0].capitalize(), text.strip())
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def duration(seconds: float) -> str:
    """``45s``, ``2m10s``, ``3h05m``, ``2d04h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def count(number: int, noun: str) -> str:
    """``1 sample``, ``2,000 samples``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
