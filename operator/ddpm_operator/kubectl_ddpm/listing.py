"""`kubectl ddpm list`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from rich.console import Console

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.views import samplings_table

_DESCRIPTION = "List samplings with their phase and progress."

_EXAMPLES = """\
# List the samplings of the current namespace
kubectl ddpm list

# List the samplings of all namespaces
kubectl ddpm list -A"""


def add_to(commands: Commands) -> None:
    command = add_command(commands, "list", _list, "List samplings and their progress", _DESCRIPTION, _EXAMPLES)
    command.add_argument("-A", "--all-namespaces", action="store_true", help="list the samplings of all namespaces")


def _list(options: argparse.Namespace) -> int:
    client = open_client(options)
    samplings = client.list(everywhere=options.all_namespaces)
    if options.json:
        for sampling in samplings:
            print_json(sampling.to_document())
    elif samplings:
        table = samplings_table(samplings, datetime.now(UTC), with_namespace=options.all_namespaces)
        Console(highlight=False).print(table)
    else:
        where = "the cluster" if options.all_namespaces else f"the namespace {client.namespace}"
        print(f"No DDPMSamplings found in {where}.", file=sys.stderr)
    return 0
