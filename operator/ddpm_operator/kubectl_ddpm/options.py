"""What all commands share: their common options, the client that these select, and JSON output."""

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
    commands: Commands,
    name: str,
    run: Command,
    summary: str,
    description: str,
    examples: str,
    *,
    usage: str | None = None,
    needs_cluster: bool = True,
    ends_with_reader: bool = False,
) -> argparse.ArgumentParser:
    """Adds a command with the common options.

    Args:
        run: what the command does; returns its exit code.
        summary: its line in the list of commands.
        description: the text above its own options.
        examples: shell lines, with comments.
        usage: replaces the generated usage line.
        needs_cluster: adds the options that select a cluster and a namespace.
        ends_with_reader: the command only shows something, perhaps for long, so it ends when stdout has no reader.
    """
    indented = "\n".join(f"  {line}".rstrip() for line in examples.splitlines())
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{indented}",
        usage=usage,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=run, ends_with_reader=ends_with_reader)
    if needs_cluster:
        command.add_argument("-n", "--namespace", help="default: the namespace of the kubeconfig context")
        command.add_argument("--context", help="kubeconfig context (default: the current one)")
    command.add_argument("--json", action="store_true", help="print one JSON document per line")
    return command


def open_client(options: argparse.Namespace) -> Client:
    """Returns a client for the cluster and namespace that the options select."""
    return Client.open(options.namespace, options.context)


def print_json(document: JsonValue) -> None:
    """Prints a document on one line and flushes, so that a pipe gets it at once."""
    print(json.dumps(document), flush=True)
