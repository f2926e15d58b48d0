"""`kubectl ddpm fetch`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddpm_operator.kubectl_ddpm.bar import bar
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.text import count


def add_to(commands: Commands) -> None:
    command = add_command(commands, "fetch", _fetch, "bring a complete sampling's images to this machine")
    command.add_argument("name", metavar="NAME")
    command.add_argument("folder", type=Path, metavar="DIR", help="made if it is not there")


def _fetch(options: argparse.Namespace) -> int:
    """Brings samples.npy and grid.png into a folder, each checked against the sampling's manifest.

    Where no samples.npy was asked for, the shards come. A pod with your rights reads them. What is there is
    not fetched again.
    """
    with bar("starting a reader pod", options.name) as told:
        fetched = client_of(options).fetch(options.name, options.folder, told)
    if options.json:
        print_json(
            {
                "name": options.name,
                "folder": str(fetched.folder),
                "samples": fetched.manifest.n_samples,
                "manifestSha256": fetched.manifest_sha256,
                "files": [{**one.file._asdict(), "wasThere": one.was_there} for one in fetched.files],
            }
        )
        return 0
    for one in fetched.files:
        print(f"{fetched.folder / one.file.path}{'  (was there)' if one.was_there else ''}")
    words = count(fetched.manifest.n_samples, "sample")
    print(f"{words}, every file as the manifest has it ({fetched.manifest_sha256[:12]})", file=sys.stderr)
    return 0
