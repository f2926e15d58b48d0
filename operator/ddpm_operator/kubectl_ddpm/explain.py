"""`kubectl ddpm explain`."""

from __future__ import annotations

import argparse

from rich.console import Console

from ddpm_operator.kubectl_ddpm.explanation import explain, view
from ddpm_operator.kubectl_ddpm.files import read
from ddpm_operator.kubectl_ddpm.manifest_file import samplings
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, print_json


def add_to(commands: Commands) -> None:
    command = add_command(
        commands,
        "explain",
        _explain,
        "show how a sampling would be spread over pods; needs no cluster",
        cluster=False,
    )
    command.add_argument("-f", "--filename", required=True, metavar="FILE", help="YAML file, or - for standard input")


def _explain(options: argparse.Namespace) -> int:
    """Checks the DDPMSamplings of a file and shows for each how it would be spread over pods, and why."""
    found = [sampling for _, sampling in samplings(*read(options.filename))]
    explained = [(sampling, explain(sampling)) for sampling in found]
    if options.json:
        for _, explanation in explained:
            print_json(explanation.to_document())
        return 0
    console = Console(highlight=False)
    for number, (sampling, explanation) in enumerate(explained):
        if number:
            console.print()
        console.print(view(sampling, explanation))
    return 0
