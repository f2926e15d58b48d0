"""`kubectl ddpm status`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from rich.console import Console

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.views import sampling_details

_DESCRIPTION = """\
Show the details of a sampling: progress, current state, plan, output and cost.
For a failed one, also the reason, what to do, and the end of the log."""

_EXAMPLES = """\
# Show why a sampling is waiting, or why it has failed
kubectl ddpm status digits"""


def add_to(commands: Commands) -> None:
    command = add_command(commands, "status", _status, "Show the details of a sampling", _DESCRIPTION, _EXAMPLES)
    command.add_argument("name", metavar="NAME", help="name of the sampling")


def _status(options: argparse.Namespace) -> int:
    sampling = open_client(options).get(options.name)
    if options.json:
        print_json(sampling.to_document())
    else:
        Console(highlight=False, soft_wrap=True).print(sampling_details(sampling, datetime.now(UTC)))
    return 0
