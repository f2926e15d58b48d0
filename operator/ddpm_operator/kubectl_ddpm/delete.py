"""`kubectl ddpm delete`."""

from __future__ import annotations

import argparse

from ddpm_operator.api import Claim, DDPMSampling
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.manifests.naming import claim_name


def add_to(commands: Commands) -> None:
    command = add_command(commands, "delete", _delete, "delete a sampling and its cluster")
    command.add_argument("names", nargs="+", metavar="NAME")


def _delete(options: argparse.Namespace) -> int:
    """Deletes samplings, running or not; their clusters go with them. Says where the samples stay, if they do.

    The same sampling submitted again finds them there and draws none twice; then `kubectl ddpm fetch` brings them.
    """
    client = client_of(options)
    for name in options.names:
        was = client.delete(name)
        place = kept_at(was)
        if options.json:
            print_json({"name": name, "namespace": was.metadata.namespace, "keptAt": place})
        else:
            print(f"{name} deleted; {f'its samples stay at {place}' if place else 'its samples go with it'}")
    return 0


def kept_at(sampling: DDPMSampling) -> str | None:
    """Where the samples of a deleted sampling are; None if they go with it."""
    output = sampling.spec.output
    if output.uri:
        return output.uri
    retained = (output.claim or Claim()).retention_policy == "Retain"
    return f"pvc://{claim_name(sampling.metadata)}" if retained else None
