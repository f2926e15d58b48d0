"""`kubectl ddpm status`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from rich.console import Console

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.kubectl_ddpm.views import details


def add_to(commands: Commands) -> None:
    command = add_command(commands, "status", _status, "show all that is known of a sampling")
    command.add_argument("name", metavar="NAME")


def _status(options: argparse.Namespace) -> int:
    """Shows where a sampling stands, how it is spread over pods, where its samples are; of a failed one, why."""
    sampling = client_of(options).get(options.name)
    if options.json:
        print_json(sampling.to_document())
    else:
        Console(highlight=False, soft_wrap=True).print(details(sampling, datetime.now(UTC)))
    return 0
