"""Formats text for people: statuses, events, logs and terminals. Pure."""

from __future__ import annotations

import re

MAX_MESSAGE_LENGTH = 2048
MAX_HINT_LENGTH = 1024
LOG_TAIL_BYTES = 2048

# Drivers, and so users, control these texts. Every repetition that can fail to match is bounded: otherwise a pattern
# takes quadratic time, and 64 KiB of one keyword would block the operator for seconds.
_CREDENTIALS = (
    (re.compile(r"(://)[^/@\s]+@"), r"\1[redacted]@"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]+"), r"\1 [redacted]"),
    (re.compile(r"(?i)((?:secret|token|password|passwd|signature|credential|api_?key|access_?key)[\w-]{0,64}\"?\s*[=:]\s*)"
                r"(\"[^\"]*\"|'[^']*'|[^\s,;&]+)"), r"\1[redacted]"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "[redacted]"),
)  # fmt: skip


# The figures of a full ResourceQuota, as in `requested: count/secrets=1, used: count/secrets=3, limited: …`: amounts of
# resources, whatever their names contain.
_QUOTA_FIGURES = re.compile(
    r"(\b(?:requested|used|limited): "
    r"(?:[\w./-]{1,320}=[0-9]{1,18}(?:\.[0-9]{1,9})?[A-Za-z]{0,2}(?:,(?=[\w./-])|(?![\w./-])))+)"
)


# ANSI escape sequences, control characters, and characters that change the direction of text.
_CONTROL = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Removes escape sequences and control characters except line breaks and tabs."""
    return _CONTROL.sub("", text)


def redact(text: str) -> str:
    """Replaces what looks like a credential, and removes what is not `printable`.

    More people can read statuses and events than Secrets, and they usually do so in a terminal.
    """
    # Every second part is the figures of a quota.
    parts = _QUOTA_FIGURES.split(printable(text))
    for pattern, replacement in _CREDENTIALS:
        parts[::2] = [pattern.sub(replacement, part) for part in parts[::2]]
    return "".join(parts)


def clip(text: str, max_length: int) -> str:
    """Returns the `printable` text, shortened to at most `max_length` characters with an ellipsis at the end."""
    text = printable(text)
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def log_tail(log: str) -> str:
    """Returns the redacted end of a log: at most 2 KiB of whole lines, or the end of a longer last line."""
    lines = redact(log).rstrip().encode()[-LOG_TAIL_BYTES - 1 :]
    if len(lines) > LOG_TAIL_BYTES:
        lines = lines[1:] if b"\n" not in lines else lines[lines.index(b"\n") + 1 :]
    return lines.decode(errors="ignore")


def as_sentence(text: str) -> str:
    """Turns another program's message into a sentence: with a capital if it starts with a word, and a full stop."""
    text = re.sub(r"^[a-z]+(?=[\s,;:])", lambda match: match[0].capitalize(), text.strip())
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def duration(seconds: float) -> str:
    """Formats a duration, such as ``45s``, ``2m10s``, ``3h05m`` or ``2d04h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def count(number: int, noun: str) -> str:
    """Formats a number with its noun, such as ``1 sample`` or ``2,000 samples``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
