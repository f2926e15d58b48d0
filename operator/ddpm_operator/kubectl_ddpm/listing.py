"""`kubectl ddpm list`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from rich.console import Console

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.kubectl_ddpm.views import table


def add_to(commands: Commands) -> None:
    command = add_command(commands, "list", _list, "show the samplings and how far they are")
    command.add_argument("-A", "--all-namespaces", action="store_true", help="of the whole cluster")


def _list(options: argparse.Namespace) -> int:
    """Shows the samplings of the namespace: where each stands and how far it is."""
    client = client_of(options)
    found = client.list(everywhere=options.all_namespaces)
    if options.json:
        for one in found:
            print_json(one.to_document())
    elif found:
        Console(highlight=False).print(table(found, datetime.now(UTC), namespaces=options.all_namespaces))
    else:
        where = "the cluster" if options.all_namespaces else f"the namespace {client.namespace}"
        print(f"no DDPMSampling in {where}", file=sys.stderr)
    return 0
