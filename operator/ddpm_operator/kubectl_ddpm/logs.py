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
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.text import printable


def add_to(commands: Commands) -> None:
    command = add_command(commands, "logs", _logs, "show the driver's log, also when its cluster is gone")
    command.add_argument("name", metavar="NAME")
    command.add_argument("-f", "--follow", action="store_true", help="go on until the cluster is gone")


def _logs(options: argparse.Namespace) -> int:
    """Shows the driver's log while its cluster is there; afterwards what was kept of it.

    A file or pipe gets it as it is. A terminal would obey what a driver writes, so it gets only what can be seen.
    """
    client = client_of(options)
    sampling = client.get(options.name)
    ended = has_ended(sampling)
    for line in after_the_end(client, sampling) if ended else lines(client.log(sampling, follow=options.follow)):
        if options.json:
            print_json({"line": line})
        else:
            print(printable(line) if sys.stdout.isatty() else line, flush=options.follow)
    return 0


def after_the_end(client: Client, sampling: DDPMSampling) -> Iterator[str]:
    """The log beside the samples, and what there is to say of the end; else what the status has of both."""
    try:
        yield from lines(client.kept_log(sampling))
    except ClientError as fault:
        print(f"{fault.message}; this is what the status keeps", file=sys.stderr)
        yield from kept(sampling)
    else:
        yield status_message(sampling)


def kept(sampling: DDPMSampling) -> list[str]:
    """The end of a failed driver's log, if the status has it, and what there is to say of the end."""
    failure = sampling.status.failure if sampling.status else None
    tail = failure.log_tail.splitlines() if failure else []
    return [*tail, status_message(sampling)]


def lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines of a text that comes in pieces, which may cut a character in two."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from whole
    if rest:
        yield rest
