"""The command ``ddpm-sample``: from its arguments to its exit code.

Parses the flags (`flags`), runs the job (`driver`) and reports its end: on stderr, as JSON on stdout, and through the
progress server if the environment asks for one.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

from ddpm_inference import stop
from ddpm_inference.errors import DdpmError, Interrupted
from ddpm_inference.flags import convert_parser, inspect_parser, job_from, nested, sample_parser, verify_parser
from ddpm_inference.job import Job, ModelRequest, ResourceRequest, TrainedSchedule
from ddpm_inference.process.log_upload import LOG_VARIABLE, log_upload
from ddpm_inference.process.run_notes import NotedView
from ddpm_inference.process.signals import interrupt_on_signals
from ddpm_inference.process.streams import outlive_readers
from ddpm_inference.process.supervisor import supervised
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import Complete, Failure, RunState, RunStateView
from ddpm_inference.progress_server.settings import settings_from
from ddpm_inference.text import count
from ddpm_inference.user_path import user_path

if TYPE_CHECKING:
    from ddpm_inference.driver import Outcome

UNEXPECTED_ERROR = 4
NOT_WHOLE = 4
OUTCOME_READ_TIMEOUT = 10.0
OUTCOME_POLL_SECONDS = 0.2
_BUG_HINT = "this looks like an error of this program; the traceback is in its log"

# Imports that take a second are inside the functions that need them, so that --help and rejections come at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, see `errors`."""
    outlive_readers()
    arguments = list(sys.argv[1:] if argv is None else argv)
    has_log = LOG_VARIABLE in os.environ
    if argv is None or has_log:
        # Ray may end the process that uses it; the parent reports that.
        on_killed = partial(_on_killed, as_json="--json" in arguments)
        return supervised(partial(_main, arguments), on_killed, has_pre_stop_hook=has_log)
    return _main(arguments)


def _main(arguments: list[str]) -> int:
    code = Interrupted.exit_code
    # The outer handler covers `at_exit`: a signal then only shortens the wait and leaves the exit code unchanged.
    with suppress(KeyboardInterrupt), interrupt_on_signals(), ExitStack() as at_exit:
        code = _run_and_report(arguments, RunState(), at_exit)
    return code


def _run_and_report(arguments: list[str], run_state: RunState, at_exit: ExitStack) -> int:
    as_json = "--json" in arguments
    try:
        with interrupt_on_signals():
            if arguments[:1] == ["convert"]:
                return _convert(arguments[1:])
            if arguments[:1] == ["inspect"]:
                return _inspect(arguments[1:])
            if arguments[:1] == ["verify"]:
                return _verify(arguments[1:])
            return _sample(arguments, run_state, at_exit)
    except DdpmError as error:
        return _end_with(error, run_state, as_json=as_json)
    except KeyboardInterrupt:
        interrupted = Interrupted("stopped by a signal before the run began")
        return _end_with(interrupted, run_state, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last resort: Python would exit with 1, which is not in the contract
        traceback.print_exc()
        _upload_log()
        run_state.end("failed", _failure(DdpmError(f"{type(error).__name__}: {error}", hint=_BUG_HINT)))
        return UNEXPECTED_ERROR


def _sample(arguments: list[str], run_state: RunState, at_exit: ExitStack) -> int:
    parser = sample_parser()
    given = parser.parse(arguments)
    if given.dry_run:
        _print_dry_run(job_from(parser, given, os.environ), given.ray_address, as_json=given.json)
        return 0
    _serve_progress(run_state, at_exit)
    job = job_from(parser, given, os.environ)
    from ddpm_inference.console import create_view, write_event
    from ddpm_inference.driver import run
    from ddpm_inference.progress_server.thumbnail import Thumbnail

    started, progress, thumbnail = time.monotonic(), Progress(), Thumbnail()
    run_state.thumbnail = thumbnail.png
    log = log_upload(os.environ)
    log_uploads = log.repeated() if log else nullcontext()
    with log_uploads, closing(create_view(sys.stdout, sys.stderr, as_json=given.json, quiet=given.quiet)) as view:
        outcome = run(
            job,
            ray_address=given.ray_address,
            view=NotedView(RunStateView(view, progress, run_state), job.output.uri),
            progress=progress,
            on_stored=thumbnail.add,
        )
    if given.json:
        write_event(sys.stdout, "complete", **_summary(outcome))
    elif not given.quiet:
        print(_completion_message(outcome, time.monotonic() - started), file=sys.stderr)
    _upload_log()
    run_state.end("complete", _complete(outcome))
    return 0


def _upload_log() -> None:
    """Uploads the log and releases the preStop hook, before the outcome is published.

    A client that reads the outcome may delete this pod at once.
    """
    log = log_upload(os.environ)
    if log:
        log.upload()
    stop.unregister_driver()


def _print_dry_run(job: Job, ray_address: str, *, as_json: bool) -> None:
    from ddpm_inference.console import write_event
    from ddpm_inference.dry_run import dry_run

    plan = dry_run(job, ray_address)
    if as_json:
        write_event(sys.stdout, "plan", **plan)
    else:
        print("\n".join(f"{label:10}{description}" for label, description in plan.items()))


def _serve_progress(run_state: RunState, at_exit: ExitStack) -> None:
    """Starts the progress server if the environment asks for it. At exit it waits until the outcome has been read."""
    settings = settings_from(os.environ)
    if settings is not None:
        from ddpm_inference.progress_server.server import serve_progress

        at_exit.enter_context(serve_progress(run_state, settings))
        at_exit.callback(_wait_for_outcome_read, run_state)


def _wait_for_outcome_read(run_state: RunState) -> None:
    deadline = time.monotonic() + OUTCOME_READ_TIMEOUT
    # Short waits: Python handles a signal that arrives just before a wait only after it.
    while run_state.ended and time.monotonic() < deadline and not run_state.outcome_sent.wait(OUTCOME_POLL_SECONDS):
        pass


def _convert(arguments: list[str]) -> int:
    from ddpm_inference.checkpoint import convert

    parser = convert_parser()
    given = parser.parse(arguments)
    fields = nested(parser.fields_given(given))
    request = parser.validated(ModelRequest, {"uri": given.source, **fields.get("model", {})}, "model")
    trained = parser.validated(TrainedSchedule, fields["trained"], "trained") if "trained" in fields else None
    source = given.source if "://" in given.source else user_path(given.source)
    target = user_path(given.target)
    written = convert(source, target, request, trained, overwrite=given.overwrite)
    for note in written.notes:
        print(note, file=sys.stderr)
    print(f"{given.target}: {written.spec.name}, sha256 {written.sha256}")
    return 0


def _inspect(arguments: list[str]) -> int:
    parser = inspect_parser()
    given = parser.parse(arguments)
    fields = nested(parser.fields_given(given))
    request = parser.validated(ModelRequest, {"uri": given.path, **fields.get("model", {})}, "model")
    from ddpm_inference.console import write_event
    from ddpm_inference.inspection import inspect

    found = inspect(request)
    if given.json:
        write_event(sys.stdout, "inspected", **found.document)
    else:
        print("\n".join(f"{label:10}{text}" for label, text in found.lines))
    return 0 if found.refusal is None else found.refusal.exit_code


def _verify(arguments: list[str]) -> int:
    parser = verify_parser()
    given = parser.parse(arguments)
    fields = nested(parser.fields_given(given))
    resources = parser.validated(ResourceRequest, fields.get("resources", {}), "resources")
    if fields and not given.repair:
        parser.error("--model_path and the flags of resources need --repair")
    from ddpm_inference.console import create_view, write_event
    from ddpm_inference.verify import repair, verify

    report = verify(given.place)
    if given.repair:
        if not report.is_whole and not given.json:
            print("\n".join(report.lines()), file=sys.stderr)
        with closing(create_view(sys.stdout, sys.stderr, as_json=given.json, quiet=False)) as view:
            report = repair(
                report,
                fields.get("model", {}).get("uri"),
                resources=resources,
                ray_address=given.ray_address,
                view=view,
            )
    if given.json:
        write_event(sys.stdout, "verified", **report.summary())
    else:
        print("\n".join(report.lines()))
        if not report.is_whole and report.manifest is not None and not given.repair:
            print(f"hint: ddpm-sample verify {given.place} --repair draws it again", file=sys.stderr)
    return 0 if report.is_whole else NOT_WHOLE


def _end_with(error: DdpmError, run_state: RunState, *, as_json: bool) -> int:
    _print_error(error, as_json=as_json)
    _upload_log()
    run_state.end("interrupted" if isinstance(error, Interrupted) else "failed", _failure(error))
    return error.exit_code


def _on_killed(error: DdpmError, *, as_json: bool) -> int:
    if sys.stderr.isatty():
        # The driver could not show the cursor again, which its progress bar hides.
        print("\033[?25h", file=sys.stderr)
    _print_error(error, as_json=as_json)
    _upload_log()
    return error.exit_code


def _print_error(error: DdpmError, *, as_json: bool) -> None:
    print("\n".join([f"error: {error.message}", *_notes(error)]), file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if as_json:
        from ddpm_inference.console import write_event

        write_event(sys.stdout, "error", **_failure(error))


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
        "output": outcome.output_uri,
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


def _completion_message(outcome: Outcome, seconds: float) -> str:
    from ddpm_inference.console import format_duration

    samples = count(outcome.manifest.n_samples, "sample")
    if not outcome.sampled:
        are = "is" if outcome.manifest.n_samples == 1 else "are"
        return f"all {samples} {are} stored already: {outcome.output_uri}"
    return (
        f"{samples} in {outcome.output_uri}: {', '.join(outcome.manifest.files)}; "
        f"{outcome.sampled} drawn in {format_duration(seconds)}"
    )
