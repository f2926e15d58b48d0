"""The options that commands share, and the cluster that they name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TypeAlias

from ddpm_operator.api.model import JsonValue
from ddpm_operator.client import Client

# argparse's own class is generic only for type checkers.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands, name: str, run: Command, help: str, *, cluster: bool = True, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A command with the options that all have.

    Args:
        cluster: it talks to one.
    """
    command = commands.add_parser(
        name,
        help=help,
        description=run.__doc__,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter if epilog else argparse.HelpFormatter,
    )
    command.set_defaults(command=run)
    if cluster:
        command.add_argument("-n", "--namespace", help="default: that of kubectl's context")
        command.add_argument("--context", help="default: kubectl's current one")
    command.add_argument("--json", action="store_true", help="print JSON documents, one a line")
    return command


def client_of(options: argparse.Namespace) -> Client:
    """The cluster and namespace that the options name."""
    return Client.open(options.namespace, options.context)


def print_json(document: JsonValue) -> None:
    """One document on one line, at once."""
    print(json.dumps(document), flush=True)
