"""`kubectl ddpm logs`."""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Iterator

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.client import Client
from ddpm_operator.client.conditions import has_ended, status_message
from ddpm_operator.client.errors import ClientError
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.text import printable

_DESCRIPTION = """\
Print the log of a sampling's driver: from the head pod while it runs, and
afterwards from the copy stored with the samples. On a terminal, control
characters are removed; a file or pipe gets the log unchanged."""

_EXAMPLES = """\
# Print the log so far
kubectl ddpm logs digits

# Follow the log until the cluster is deleted
kubectl ddpm logs -f digits"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands,
        "logs",
        _logs,
        "Print the log of a sampling, even after it has ended",
        _DESCRIPTION,
        _EXAMPLES,
        ends_with_reader=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the sampling")
    command.add_argument("-f", "--follow", action="store_true", help="follow the log until the cluster is deleted")


def _logs(options: argparse.Namespace) -> int:
    client = open_client(options)
    sampling = client.get(options.name)
    if has_ended(sampling):
        lines = _lines_after_end(client, sampling)
    else:
        lines = split_lines(client.log(sampling, follow=options.follow))
    for line in lines:
        if options.json:
            print_json({"line": line})
        else:
            # A terminal would execute the escape sequences that a driver prints.
            print(printable(line) if sys.stdout.isatty() else line, flush=options.follow)
    return 0


def _lines_after_end(client: Client, sampling: DDPMSampling) -> Iterator[str]:
    """Yields the log stored with the samples, or else the log tail in the status; then the status message."""
    try:
        yield from split_lines(client.kept_log(sampling))
    except ClientError as error:
        print(f"{error.message}; showing the log tail from the status", file=sys.stderr)
        failure = sampling.status.failure if sampling.status else None
        yield from failure.log_tail.splitlines() if failure else []
    yield status_message(sampling)


def split_lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Splits UTF-8 chunks into lines. A chunk may end in the middle of a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    incomplete = ""
    for chunk in chunks:
        *lines, incomplete = (incomplete + decoder.decode(chunk)).split("\n")
        yield from lines
    if incomplete:
        yield incomplete
