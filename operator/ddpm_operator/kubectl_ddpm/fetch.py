"""`kubectl ddpm fetch`."""

from __future__ import annotations

import argparse
import sys

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.progress_bar import progress_bar
from ddpm_operator.kubectl_ddpm.user_path import user_path
from ddpm_operator.text import count

_DESCRIPTION = """\
Download samples.npy and grid.png of a complete sampling, and verify each
against the sampling's manifest. Without the output format npy, the shards are
downloaded instead. Files that are already complete in the folder are not
downloaded again. A short-lived pod, created with your permissions, reads the
files."""

_EXAMPLES = """\
# Download the samples into ./out-digits
kubectl ddpm fetch digits out-digits"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "fetch", _fetch, "Download the samples of a complete sampling", _DESCRIPTION, _EXAMPLES
    )
    command.add_argument("name", metavar="NAME", help="name of the sampling")
    command.add_argument("folder", type=user_path, metavar="DIR", help="created if it does not exist")


def _fetch(options: argparse.Namespace) -> int:
    with progress_bar("starting a reader pod", options.name) as on_progress:
        fetched = open_client(options).fetch(options.name, options.folder, on_progress)
    if options.json:
        print_json(
            {
                "name": options.name,
                "folder": str(fetched.folder),
                "samples": fetched.manifest.n_samples,
                "manifestSha256": fetched.manifest_sha256,
                "files": [{**it.file._asdict(), "wasThere": it.was_there} for it in fetched.files],
            }
        )
        return 0
    for it in fetched.files:
        print(f"{fetched.folder / it.file.path}{'  (already downloaded)' if it.was_there else ''}")
    samples = count(fetched.manifest.n_samples, "sample")
    print(f"{samples}, every file verified against the manifest ({fetched.manifest_sha256[:12]})", file=sys.stderr)
    return 0
