"""What a status says about a worker's death, from Ray's long error message."""

from __future__ import annotations

from ray.exceptions import RayError

from ddpm_inference.ray_backend.ray_errors import ddpm_error_from

WHICH_ACTOR = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Worker\n\tactor_id: 6c8caf6af7\n"
    "\tpid: 675\n\tnamespace: 5a1c\n\tip: 198.18.1.219\nThe actor is dead because its worker process has died. "
    "Worker exit type: SYSTEM_ERROR "
)
CAUSE = "Worker unexpectedly exits with a connection error code 2. End of file. There are some potential root causes."


def test_the_message_begins_with_the_cause_of_death() -> None:
    error = ddpm_error_from(RayError(f"{WHICH_ACTOR}Worker exit detail: {CAUSE}"))
    assert error.reason == "WorkerLost"
    assert error.message == f"a worker died: {CAUSE}"


def test_a_low_memory_kill_is_out_of_memory() -> None:
    error = ddpm_error_from(RayError("1 worker(s) were killed, the node is low on memory. OOM kill reason: a\nb\nc"))
    assert error.reason == "OutOfMemory"
    assert error.message.endswith("the node is low on memory.")


def test_a_long_message_is_cut_after_a_whole_word() -> None:
    error = ddpm_error_from(RayError("unlikely " * 60))
    assert error.message.removeprefix("a worker died: ") == f"{'unlikely ' * 33}…"
