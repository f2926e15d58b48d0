"""`kubectl ddpm`: what a person does with DDPMSamplings. A command is a function from its options to an exit code.

Exit codes: 0 done, 2 bad usage or input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ddpm_operator.explain import explain, view
from ddpm_operator.resource_file import FileFault, samplings
from ddpm_operator.sizing import Unplannable


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's entry point; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except FileFault as fault:
        for line in fault.faults:
            print(f"error: {line}", file=sys.stderr)
    except Unplannable as fault:
        print(f"error: {fault.message}\n  {fault.hint}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl ddpm", description="Draw images from diffusion models on Kubernetes."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "explain",
        help="show how a sampling would be spread over pods; needs no cluster",
        description=_explain.__doc__,
    )
    command.add_argument(
        "-f", "--filename", required=True, metavar="FILE", help="YAML file, or - for standard input"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document a sampling and line")
    command.set_defaults(command=_explain)
    return parser


def _explain(options: argparse.Namespace) -> int:
    """Checks the DDPMSamplings of a file and shows for each how it would be spread over pods, and why."""
    found = samplings(*_read(options.filename))
    explained = [(sampling, explain(sampling)) for sampling in found]
    if options.json:
        for _, explanation in explained:
            print(json.dumps(explanation.to_document()))
        return 0
    console = Console(highlight=False)
    for number, (sampling, explanation) in enumerate(explained):
        if number:
            console.print()
        console.print(view(sampling, explanation))
    return 0


def _read(filename: str) -> tuple[str, str]:
    """(text, name for messages) of a file or of standard input."""
    try:
        if filename == "-":
            return sys.stdin.read(), "standard input"
        return Path(filename).read_text(encoding="utf-8"), filename
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise FileFault([f"{filename}: {reason}"]) from error


if __name__ == "__main__":
    sys.exit(main())
