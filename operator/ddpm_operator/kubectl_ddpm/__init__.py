"""`kubectl ddpm`: what a person does with DDPMSamplings. A command is a function from its options to an exit code.

Exit codes: 0 done; 2 bad usage or input, or not there; 3 no cluster reached, or not allowed; 4 the sampling
failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ddpm_operator.client import ClientError, NotAllowed, SamplingFailed, Unreachable
from ddpm_operator.kubectl_ddpm import delete, explain, fetch, listing, logs, retry, status, submit, watch
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError
from ddpm_operator.planning.sizing import PlanningError

_COMMANDS = (submit, listing, status, watch, logs, fetch, explain, retry, delete)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's entry point; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except ManifestError as fault:
        return _say(2, *fault.faults)
    except PlanningError as fault:
        return _say(2, f"{fault.message}\n  {fault.hint}")
    except ClientError as fault:
        return _say(_code(fault), f"{fault.message}\n  {fault.hint}")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has had enough; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _code(fault: ClientError) -> int:
    if isinstance(fault, SamplingFailed):
        return 4
    return 3 if isinstance(fault, NotAllowed | Unreachable) else 2


def _say(code: int, *errors: str) -> int:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl ddpm", description="Draw images from diffusion models on Kubernetes."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser
