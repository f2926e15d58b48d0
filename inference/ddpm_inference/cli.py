"""The command ``ddpm-sample``: from its arguments to its exit code."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ddpm_inference.errors import DdpmError, Interrupted
from ddpm_inference.flags import convert_parser, job_from, nested, sample_parser
from ddpm_inference.interrupt import stoppable
from ddpm_inference.job import ModelRequest, TrainedSchedule
from ddpm_inference.progress import Progress

if TYPE_CHECKING:
    from ddpm_inference.driver import Outcome

UNEXPECTED = 4

# What takes a second to import is imported where it is needed: --help and a refusal should come at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (see `flags.EXAMPLES`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with stoppable():
            return _convert(arguments[1:]) if arguments[:1] == ["convert"] else _sample(arguments)
    except DdpmError as error:
        return _refused(error, as_json="--json" in arguments)
    except KeyboardInterrupt:
        return _refused(
            Interrupted("stopped by a signal before anything was begun"), as_json="--json" in arguments
        )
    except Exception:  # noqa: BLE001 - the last resort: Python itself would exit with 1, which has no meaning here
        traceback.print_exc()
        return UNEXPECTED


def _sample(arguments: list[str]) -> int:
    parser = sample_parser()
    given = parser.parse(arguments)
    job = job_from(parser, given, os.environ)
    from ddpm_inference.views import event, view_for

    if given.dry_run:
        from ddpm_inference.preview import preview

        plan = preview(job, given.ray_address)
        if given.json:
            event(sys.stdout, "plan", **plan)
        else:
            print("\n".join(f"{label:10}{words}" for label, words in plan.items()))
        return 0
    from ddpm_inference.driver import run

    started = time.monotonic()
    with closing(view_for(sys.stdout, sys.stderr, as_json=given.json, quiet=given.quiet)) as view:
        outcome = run(job, ray_address=given.ray_address, view=view, progress=Progress())
    if given.json:
        event(sys.stdout, "complete", **_summary(outcome))
    elif not given.quiet:
        print(_ending(outcome, time.monotonic() - started), file=sys.stderr)
    return 0


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


def _refused(error: DdpmError, *, as_json: bool) -> int:
    notes = getattr(error, "__notes__", [])
    print("\n".join([f"error: {error.message}", *notes]), file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if as_json:
        from ddpm_inference.views import event

        event(
            sys.stdout,
            "error",
            reason=error.reason,
            exitCode=error.exit_code,
            message=" ".join([error.message, *notes]),
            hint=error.hint,
        )
    return error.exit_code


def _summary(outcome: Outcome) -> dict[str, object]:
    return {
        "output": outcome.place,
        "samples": outcome.manifest.n_samples,
        "sampled": outcome.sampled,
        "fingerprint": outcome.manifest.fingerprint,
        "files": list(outcome.manifest.files),
    }


def _ending(outcome: Outcome, seconds: float) -> str:
    from ddpm_inference.views import duration

    total = outcome.manifest.n_samples
    if not outcome.sampled:
        return f"all {total} samples are there: {outcome.place}"
    return (
        f"{total} samples in {outcome.place}: {', '.join(outcome.manifest.files)}; "
        f"{outcome.sampled} drawn in {duration(seconds)}"
    )
