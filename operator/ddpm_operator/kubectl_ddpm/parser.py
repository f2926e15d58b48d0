"""The argument parser of all commands. It suggests the closest known word for one that it does not know."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class Parser(argparse.ArgumentParser):
    """An argument parser with suggestions. The parsers of its subcommands are of this class, too."""

    def parse_known_args(
        self,
        args: Iterable[str] | None = None,
        namespace: Any = None,  # noqa: ANN401 - argparse's own
    ) -> tuple[Any, list[str]]:
        """Parses the arguments; an unknown one is an error, reported by the command that it was given to."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            self.error(
                f"unknown arguments: {' '.join(unknown)}"
                + _did_you_mean(flags[0] if flags else "", self._option_string_actions)
            )
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{value} is not one of {', '.join(known)}{_did_you_mean(str(value), known)}"
            )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    original = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), original, n=1)
    return f"; did you mean {original[close[0]]}?" if close else ""
