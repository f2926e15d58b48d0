"""`kubectl ddpm verify`."""

from __future__ import annotations

import argparse
import sys

from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.progress_bar import progress_bar
from ddpm_operator.text import count

NOT_WHOLE = 4
_MAX_SHOWN = 20

_DESCRIPTION = """\
Hash every stored file of a complete sampling, and compare it with the
sampling's manifest. Nothing is downloaded and nothing is changed: a
short-lived pod, created with your permissions, reads the files. The exit code
is 0 if all files are whole, and 4 if not."""

_EXAMPLES = """\
# Check that the stored samples are still whole
kubectl ddpm verify digits"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "verify", _verify, "Check the stored samples of a complete sampling", _DESCRIPTION, _EXAMPLES
    )
    command.add_argument("name", metavar="NAME", help="name of the sampling")


def _verify(options: argparse.Namespace) -> int:
    with progress_bar("starting a reader pod", options.name) as on_progress:
        verified = open_client(options).verify(options.name, on_progress)
    if options.json:
        print_json(
            {
                "name": options.name,
                "whole": not verified.damaged,
                "samples": verified.samples,
                "files": verified.files,
                "manifestSha256": verified.manifest_sha256,
                "problems": [{"file": it.name, "problem": it.problem} for it in verified.damaged],
            }
        )
    else:
        for it in verified.damaged[:_MAX_SHOWN]:
            print(f"{it.name} {it.problem}")
        if len(verified.damaged) > _MAX_SHOWN:
            print(f"and {len(verified.damaged) - _MAX_SHOWN} more")
    if verified.damaged:
        print(
            f"error: the output of {options.name} is not whole\n"
            f"  run `kubectl ddpm retry {options.name} --repair`, which draws damaged samples again",
            file=sys.stderr,
        )
        return NOT_WHOLE
    if not options.json:
        samples, number = count(verified.samples or 0, "sample"), count(verified.files, "file")
        print(f"{samples}, {number}, each with the sha256 of the manifest")
    return 0
