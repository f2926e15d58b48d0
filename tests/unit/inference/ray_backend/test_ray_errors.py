"""What Ray says of a worker's end, in words that fit into a status."""

from __future__ import annotations

from ray.exceptions import RayError

from ddpm_inference.ray_backend.ray_errors import cause_of

WHOSE = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Worker\n\tactor_id: 6c8caf6af7\n"
    "\tpid: 675\n\tnamespace: 5a1c\n\tip: 198.18.1.219\nThe actor is dead because its worker process has died. "
    "Worker exit type: SYSTEM_ERROR "
)
HOW = "Worker unexpectedly exits with a connection error code 2. End of file. There are some potential root causes."


def test_how_a_worker_died_comes_before_whose_it_was() -> None:
    cause = cause_of(RayError(f"{WHOSE}Worker exit detail: {HOW}"))
    assert cause.reason == "WorkerLost"
    assert cause.message == f"a worker died: {HOW}"


def test_what_is_too_long_ends_with_a_whole_word_and_a_sign_that_there_was_more() -> None:
    words = "unlikely " * 60
    assert cause_of(RayError(words)).message.removeprefix("a worker died: ") == f"{'unlikely ' * 33}…"
