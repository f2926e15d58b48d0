"""`kubectl ddpm retry`."""

from __future__ import annotations

import argparse

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.kubectl_ddpm.views import progress_of
from ddpm_operator.text import count


def add_to(commands: Commands) -> None:
    command = add_command(commands, "retry", _retry, "let a sampling that has failed go on")
    command.add_argument("name", metavar="NAME")


def _retry(options: argparse.Namespace) -> int:
    """Lets a failed sampling try again, by a higher backoffLimit. Samples that are stored are not drawn again."""
    sampling = client_of(options).retry(options.name)
    name, namespace, done = options.name, sampling.metadata.namespace, progress_of(sampling)
    if options.json:
        print_json({"name": name, "namespace": namespace, "backoffLimit": sampling.spec.backoff_limit})
    else:
        print(
            f"{name} goes on with {done.done:,} of {count(done.total, 'sample')}; follow it with "
            f"`kubectl ddpm watch {name} -n {namespace}`"
        )
    return 0
