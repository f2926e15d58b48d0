"""The kubectl plugin `kubectl ddpm`. Each command is a module here; its function maps parsed options to an exit code.

Exit codes: 0 success; 2 invalid usage or input, or not found; 3 cluster unreachable, or permission denied; 4 the
sampling failed, or its output is damaged; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ddpm_operator.client import ClientError, NotAllowed, SamplingFailed, Unreachable
from ddpm_operator.kubectl_ddpm import delete, explain, fetch, listing, logs, retry, status, submit, verify, watch
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError
from ddpm_operator.kubectl_ddpm.parser import Parser
from ddpm_operator.kubectl_ddpm.streams import ReaderIsGone, end_with_reader, outlive_readers
from ddpm_operator.planning.sizing import PlanningError

_COMMANDS = (submit, listing, status, watch, logs, fetch, verify, explain, retry, delete)

_DESCRIPTION = """\
Draw images from diffusion models (DDPM) on Kubernetes.

A DDPMSampling ("sampling") is a request to draw images from a checkpoint. The
operator runs it on a RayCluster that it creates and deletes."""

_EPILOG = """\
exit codes:
  0    success
  2    invalid usage or input, or not found
  3    cluster unreachable, or permission denied
  4    the sampling failed, or its output is damaged
  130  interrupted

Use "kubectl ddpm COMMAND --help" for the options and examples of a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    outlive_readers()
    options = _parser().parse_args(arguments)
    if options.ends_with_reader:
        end_with_reader()
    try:
        code: int = options.command(options)
    except ManifestError as error:
        return _print_errors(2, *error.messages)
    except PlanningError as error:
        return _print_errors(2, f"{error.message}\n  {error.hint}")
    except ClientError as error:
        return _print_errors(_exit_code(error), f"{error.message}\n  {error.hint}")
    except KeyboardInterrupt:
        return 130
    except ReaderIsGone:
        return 0
    return code


def _exit_code(error: ClientError) -> int:
    if isinstance(error, SamplingFailed):
        return 4
    return 3 if isinstance(error, NotAllowed | Unreachable) else 2


def _print_errors(code: int, *errors: str) -> int:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="kubectl ddpm",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser
