"""`kubectl ddpm retry`."""

from __future__ import annotations

import argparse

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.views import progress_of
from ddpm_operator.text import count

_DESCRIPTION = """\
Start another attempt of a failed sampling by raising its backoffLimit. Only the
missing samples are drawn. With --repair, of a complete sampling too: the attempt
checks all stored files, and draws damaged samples again."""

_EXAMPLES = """\
# Retry a failed sampling
kubectl ddpm retry digits

# Check all stored files, and draw damaged samples again
kubectl ddpm retry digits --repair"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "retry", _retry, "Retry a failed sampling, or repair a complete one", _DESCRIPTION, _EXAMPLES
    )
    command.add_argument("name", metavar="NAME", help="name of the sampling")
    command.add_argument("--repair", action="store_true", help="check all stored files, and draw damaged samples again")


def _retry(options: argparse.Namespace) -> int:
    sampling = open_client(options).retry(options.name, repair=options.repair)
    name, namespace, progress = options.name, sampling.metadata.namespace, progress_of(sampling)
    if options.json:
        fields = {"name": name, "namespace": namespace, "backoffLimit": sampling.spec.backoff_limit}
        print_json(fields | ({"repair": sampling.spec.repair} if options.repair else {}))
    elif options.repair:
        print(f"{name} is checked and repaired; follow it with `kubectl ddpm watch {name} -n {namespace}`")
    else:
        print(
            f"{name} retried with {progress.done:,} of {count(progress.total, 'sample')} done; follow it with "
            f"`kubectl ddpm watch {name} -n {namespace}`"
        )
    return 0
