"""The command ``ddpm-sample``: from its arguments to its exit code."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ddpm_inference import stop
from ddpm_inference.errors import DdpmError, Interrupted
from ddpm_inference.flags import convert_parser, job_from, nested, sample_parser
from ddpm_inference.job import Job, ModelRequest, TrainedSchedule
from ddpm_inference.process.log_upload import LOG_VARIABLE, log_upload
from ddpm_inference.process.signals import interrupt_on_signals
from ddpm_inference.process.supervisor import supervised
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import Complete, Failure, RunState, RunStateView
from ddpm_inference.progress_server.settings import settings_from

if TYPE_CHECKING:
    from ddpm_inference.driver import Outcome

UNEXPECTED = 4
LINGER_SECONDS = 10.0
LOOK_SECONDS = 0.2
_OUR_FAULT = "this looks like an error of this program; its log says where"

# What takes a second to import is imported where it is needed: --help and a refusal should come at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (see `flags.EXAMPLES`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if LOG_VARIABLE in os.environ:
        return supervised(partial(_main, arguments), partial(_bereaved, as_json="--json" in arguments))
    return _main(arguments)


def _main(arguments: list[str]) -> int:
    code = Interrupted.exit_code
    # Two blocks in one another: whether the run itself was stopped or not, a further signal only cuts short
    # what comes after it.
    with suppress(KeyboardInterrupt), interrupt_on_signals(), ExitStack() as afterwards:
        code = _code_of(arguments, RunState(), afterwards)
    return code


def _code_of(arguments: list[str], board: RunState, afterwards: ExitStack) -> int:
    as_json = "--json" in arguments
    try:
        with interrupt_on_signals():
            if arguments[:1] == ["convert"]:
                return _convert(arguments[1:])
            return _sample(arguments, board, afterwards)
    except DdpmError as error:
        return _refused(error, board, as_json=as_json)
    except KeyboardInterrupt:
        stopped = Interrupted("stopped by a signal before anything was begun")
        return _refused(stopped, board, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last resort: Python would exit with 1, which has no meaning here
        traceback.print_exc()
        _keep_log()
        board.end("failed", _failure(DdpmError(f"{type(error).__name__}: {error}", hint=_OUR_FAULT)))
        return UNEXPECTED


def _sample(arguments: list[str], board: RunState, afterwards: ExitStack) -> int:
    parser = sample_parser()
    given = parser.parse(arguments)
    if given.dry_run:
        _tell_plan(job_from(parser, given, os.environ), given.ray_address, as_json=given.json)
        return 0
    _serve(board, afterwards)
    job = job_from(parser, given, os.environ)
    from ddpm_inference.console import event, view_for
    from ddpm_inference.driver import run
    from ddpm_inference.progress_server.thumbnail import Thumbnail

    started, progress, gallery = time.monotonic(), Progress(), Thumbnail()
    board.picture = gallery.png
    log = log_upload(os.environ)
    meanwhile = log.kept_meanwhile() if log else nullcontext()
    with meanwhile, closing(view_for(sys.stdout, sys.stderr, as_json=given.json, quiet=given.quiet)) as view:
        outcome = run(
            job,
            ray_address=given.ray_address,
            view=RunStateView(view, progress, board),
            progress=progress,
            on_stored=gallery.add,
        )
    if given.json:
        event(sys.stdout, "complete", **_summary(outcome))
    elif not given.quiet:
        print(_ending(outcome, time.monotonic() - started), file=sys.stderr)
    _keep_log()
    board.end("complete", _complete(outcome))
    return 0


def _keep_log() -> None:
    """Stores what was said, before the end is told: who hears it may take this machine away."""
    log = log_upload(os.environ)
    if log:
        log.keep()
    stop.stored()


def _tell_plan(job: Job, ray_address: str, *, as_json: bool) -> None:
    from ddpm_inference.console import event
    from ddpm_inference.dry_run import dry_run

    plan = dry_run(job, ray_address)
    if as_json:
        event(sys.stdout, "plan", **plan)
    else:
        print("\n".join(f"{label:10}{words}" for label, words in plan.items()))


def _serve(board: RunState, afterwards: ExitStack) -> None:
    """Serves the board if the environment asks for it, and in the end until somebody was told of the outcome."""
    settings = settings_from(os.environ)
    if settings is not None:
        from ddpm_inference.progress_server.server import served

        afterwards.enter_context(served(board, settings))
        afterwards.callback(_linger, board)


def _linger(board: RunState) -> None:
    until = time.monotonic() + LINGER_SECONDS
    # Bit by bit: Python notices a signal that came just before a wait only after it.
    while board.ended and time.monotonic() < until and not board.heard.wait(LOOK_SECONDS):
        pass


def _convert(arguments: list[str]) -> int:
    from ddpm_inference.checkpoint import convert

    parser = convert_parser()
    given = parser.parse(arguments)
    fields = nested(parser.fields_given(given))
    try:
        request = ModelRequest.model_validate({"uri": given.source, **fields.get("model", {})})
        trained = TrainedSchedule.model_validate(fields["trained"]) if "trained" in fields else None
    except ValidationError as error:
        raise parser.explain(error) from error
    written = convert(Path(given.source), Path(given.target), request, trained, overwrite=given.overwrite)
    for note in written.notes:
        print(note, file=sys.stderr)
    print(f"{given.target}: {written.spec.name}, sha256 {written.sha256}")
    return 0


def _refused(error: DdpmError, board: RunState, *, as_json: bool) -> int:
    _tell(error, as_json=as_json)
    _keep_log()
    board.end("interrupted" if isinstance(error, Interrupted) else "failed", _failure(error))
    return error.exit_code


def _bereaved(error: DdpmError, *, as_json: bool) -> int:
    _tell(error, as_json=as_json)
    _keep_log()
    return error.exit_code


def _tell(error: DdpmError, *, as_json: bool) -> None:
    print("\n".join([f"error: {error.message}", *_notes(error)]), file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if as_json:
        from ddpm_inference.console import event

        event(sys.stdout, "error", **_failure(error))


def _failure(error: DdpmError) -> Failure:
    return {
        "reason": error.reason,
        "exitCode": error.exit_code,
        "message": " ".join([error.message, *_notes(error)]),
        "hint": error.hint,
    }


def _notes(error: DdpmError) -> list[str]:
    return getattr(error, "__notes__", [])


def _complete(outcome: Outcome) -> Complete:
    return {
        "output": outcome.place,
        "samples": outcome.manifest.n_samples,
        "sampled": outcome.sampled,
        "manifestSha256": outcome.manifest_sha256,
    }


def _summary(outcome: Outcome) -> dict[str, object]:
    return {
        **_complete(outcome),
        "fingerprint": outcome.manifest.fingerprint,
        "files": list(outcome.manifest.files),
    }


def _ending(outcome: Outcome, seconds: float) -> str:
    from ddpm_inference.console import duration

    total = outcome.manifest.n_samples
    if not outcome.sampled:
        return f"all {total} samples are there: {outcome.place}"
    return (
        f"{total} samples in {outcome.place}: {', '.join(outcome.manifest.files)}; "
        f"{outcome.sampled} drawn in {duration(seconds)}"
    )
