"""`kubectl ddpm retry`."""

from __future__ import annotations

import argparse

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.views import progress_of
from ddpm_operator.text import count

_DESCRIPTION = """\
Start another attempt of a failed sampling by raising its backoffLimit. Only the
missing samples are drawn."""

_EXAMPLES = """\
# Retry a failed sampling
kubectl ddpm retry digits"""


def add_to(commands: Commands) -> None:
    command = add_command(commands, "retry", _retry, "Retry a failed sampling", _DESCRIPTION, _EXAMPLES)
    command.add_argument("name", metavar="NAME", help="name of the sampling")


def _retry(options: argparse.Namespace) -> int:
    sampling = open_client(options).retry(options.name)
    name, namespace, progress = options.name, sampling.metadata.namespace, progress_of(sampling)
    if options.json:
        print_json({"name": name, "namespace": namespace, "backoffLimit": sampling.spec.backoff_limit})
    else:
        print(
            f"{name} retried with {progress.done:,} of {count(progress.total, 'sample')} done; follow it with "
            f"`kubectl ddpm watch {name} -n {namespace}`"
        )
    return 0
