"""`kubectl ddpm delete`."""

from __future__ import annotations

import argparse

from ddpm_operator.api import Claim, DDPMSampling
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.manifests.naming import claim_name

_DESCRIPTION = """\
Delete samplings, running or not, and their RayClusters. Prints where the
samples are kept, unless they are deleted too (retention policy Delete).
Submitting the same sampling again finds the samples there and draws only those
that are missing."""

_EXAMPLES = """\
# Delete a sampling and keep its samples
kubectl ddpm delete digits"""


def add_to(commands: Commands) -> None:
    command = add_command(commands, "delete", _delete, "Delete samplings and their clusters", _DESCRIPTION, _EXAMPLES)
    command.add_argument("names", nargs="+", metavar="NAME", help="name of a sampling")


def _delete(options: argparse.Namespace) -> int:
    client = open_client(options)
    for name in options.names:
        sampling = client.delete(name)
        location = retained_output(sampling)
        if options.json:
            print_json({"name": name, "namespace": sampling.metadata.namespace, "keptAt": location})
        else:
            print(f"{name} deleted; {f'its samples stay at {location}' if location else 'its samples are deleted too'}")
    return 0


def retained_output(sampling: DDPMSampling) -> str | None:
    """Returns the URI of a deleted sampling's samples; None if they are deleted with it."""
    output = sampling.spec.output
    if output.uri:
        return output.uri
    retained = (output.claim or Claim()).retention_policy == "Retain"
    return f"pvc://{claim_name(sampling.metadata)}" if retained else None
