"""The head of an attempt, asked over HTTP: what Ray and the driver answer, and what nobody should answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc

import pytest
from aiohttp import web

from ddpm_operator.ray.head_client import HeadClient, HeadDidNotAnswer, new_session
from ddpm_operator.reconcile.observed import HeadResponse, RayJob
from tests.fakes.heads import TOKENS, Door, ask_head, nobody, says
from tests.fakes.heads import Answer as Answers

PROGRESS = {
    "version": 1,
    "phase": "sampling",
    "done": 32,
    "total": 100,
    "percent": 32.0,
    "samplesPerSecond": 4.5,
    "etaSeconds": 15.0,
    "message": "",
}
JOBS = [
    {"type": "DRIVER", "status": "RUNNING", "submission_id": None, "entrypoint": "", "job_id": "01"},
    {
        "type": "SUBMISSION",
        "status": "RUNNING",
        "submission_id": "digits-1",
        "entrypoint": "ddpm-sample --json",
        "message": None,
        "metadata": {"samples": "100"},
    },
]


async def ask(head: HeadClient) -> HeadResponse:
    return await head.ask("digits-1")


def submitted(name: str, state: str, samples: int = 100) -> dict[str, object]:
    return {"type": "SUBMISSION", "status": state, "submission_id": name, "metadata": {"samples": str(samples)}}


def many_failed(*names: str) -> str:
    """As a head lists them that wants as many as possible to fit into the operator's megabyte."""
    failed = [{"type": "SUBMISSION", "status": "FAILED", "submission_id": name} for name in names]
    return json.dumps(failed, separators=(",", ":"))


def test_jobs_and_progress_are_read_with_the_token_of_each_door() -> None:
    dashboard, driver = Door(says(200, json.dumps(JOBS))), Door(says(200, json.dumps(PROGRESS)))
    answer = ask_head(ask, dashboard, driver)
    assert answer.jobs == (RayJob("digits-1", "RUNNING", samples=100),)
    assert answer.progress is not None
    assert (answer.progress.done, answer.progress.total) == (32, 100)
    assert dashboard.asked == [("GET", "/api/jobs/", TOKENS.ray)]
    assert driver.asked == [("GET", "/progress", TOKENS.progress)]


def test_of_a_failed_job_the_end_of_its_log_is_read_as_well() -> None:
    failed = {"type": "SUBMISSION", "status": "FAILED", "submission_id": "digits-1", "message": "exit code 4"}

    async def answer(request: web.Request) -> web.StreamResponse:
        found = {"logs": "begin\n" + "x" * 10_000 + "\nthe end\n"} if request.path.endswith("/logs") else [failed]
        return web.json_response(found)

    (job,) = ask_head(ask, Door(answer)).jobs
    assert (job.state, job.message) == ("FAILED", "exit code 4")
    assert job.log.endswith("x\nthe end\n")
    assert len(job.log) == 4096


def test_a_job_that_ended_with_rays_own_node_is_no_answer() -> None:
    died = "Job supervisor actor died: The actor died because its node has died. Node Id: 6e553ccb"
    failed = {"type": "SUBMISSION", "status": "FAILED", "submission_id": "digits-1", "message": died}
    with pytest.raises(HeadDidNotAnswer, match="own node has died"):
        ask_head(ask, Door(says(200, json.dumps([failed]))))


def test_of_a_driver_that_says_it_has_failed_the_log_is_read_while_it_is_still_there() -> None:
    outcome = {"reason": "ModelNotFound", "exitCode": 2, "message": "it is not there", "hint": ""}

    async def dashboard(request: web.Request) -> web.StreamResponse:
        return web.json_response({"logs": "error: it is not there"} if request.path.endswith("/logs") else JOBS)

    driver = says(200, json.dumps({**PROGRESS, "phase": "failed", "outcome": outcome}))
    answer = ask_head(ask, Door(dashboard), Door(driver))
    assert answer.jobs == (RayJob("digits-1", "RUNNING", samples=100, log="error: it is not there"),)


def test_a_job_is_submitted_with_its_document_and_its_number_of_samples() -> None:
    bodies = []

    async def answer(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return web.json_response({"submission_id": "digits-1", "job_id": "digits-1"})

    door = Door(answer)
    ask_head(lambda head: head.submit("digits-1", {"n_samples": 100}, 100), door)
    (body,) = bodies
    assert door.asked == [("POST", "/api/jobs/", TOKENS.ray)]
    assert (body["submission_id"], body["entrypoint"]) == ("digits-1", "ddpm-sample --json")
    told = body["runtime_env"]["env_vars"]
    assert json.loads(told.pop("DDPM_JOB")) == {"n_samples": 100}
    assert told == {"DDPM_LOG": "digits-1", "DDPM_ONE_IMAGE": "1"}
    assert body["metadata"] == {"samples": "100"}


@pytest.mark.parametrize("status", [400, 500])
def test_a_job_that_is_there_already_is_as_good_as_submitted(status: int) -> None:
    there = "Traceback …\nValueError: Job with submission_id digits-1 already exists. Please use a different one."
    ask_head(lambda head: head.submit("digits-1", {}, 100), Door(says(status, there)))


def test_a_head_whose_agent_still_starts_has_not_taken_the_job() -> None:
    door = Door(says(500, "No available agent to submit job, please try again later."))
    with pytest.raises(HeadDidNotAnswer, match="500: No available agent"):
        ask_head(lambda head: head.submit("digits-1", {}, 100), door)


def test_a_refusal_is_told_by_its_last_line_and_not_by_its_traceback() -> None:
    door = Door(says(500, "Traceback\n  File a\n  File b\nOSError: \x1b[31mno space left\x1b[0m"))
    with pytest.raises(HeadDidNotAnswer) as caught:
        ask_head(ask, door)
    assert str(caught.value) == "Ray answered 500: OSError: no space left"


def test_nobody_at_home_is_silence() -> None:
    async def run() -> None:
        door = Door(nobody())
        async with door.open() as address:
            pass
        async with Door(nobody()).open() as driver, new_session() as session:
            await ask(HeadClient(session, address, driver, TOKENS))

    with pytest.raises(HeadDidNotAnswer):
        asyncio.run(run())


@pytest.mark.parametrize(
    "driver",
    [
        nobody(),
        says(401, "401: Unauthorized"),
        says(200, "no JSON"),
        says(200, json.dumps(PROGRESS | {"version": 2})),
        says(200, json.dumps(PROGRESS | {"done": -1})),
        says(500, json.dumps(PROGRESS)),
    ],
)
def test_a_driver_that_says_nothing_of_use_has_no_progress_and_hides_no_job(driver: Answers) -> None:
    answer = ask_head(ask, Door(says(200, json.dumps(JOBS))), Door(driver))
    assert answer == HeadResponse((RayJob("digits-1", "RUNNING", samples=100),), progress=None)


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "{}",
        "[" * 100_000,
        '[{"submission_id": "digits-1"}]',
        json.dumps([submitted("digits-1", "LOST")]),
        json.dumps([{**submitted("digits-1", "RUNNING"), "type": "DRIVER"}]),
    ],
)
def test_jobs_that_are_not_what_ray_answers_are_silence(body: str) -> None:
    with pytest.raises(HeadDidNotAnswer, match="not what Ray answers"):
        ask_head(ask, Door(says(200, body)))


def test_jobs_that_the_operator_has_not_submitted_are_none_of_its_own_whatever_they_are() -> None:
    others = [7, {}, {"submission_id": ["a"]}, submitted("raysubmit_x", "FAILED"), submitted("digits-2", "LOST")]
    listed = [*others, submitted("digits-1-r4", "FAILED"), submitted("digits-1-r2", "RUNNING", 200), *JOBS]
    dashboard = Door(says(200, json.dumps(listed)))
    assert ask_head(ask, dashboard).jobs == (
        RayJob("digits-1", "RUNNING", samples=100),
        RayJob("digits-1-r2", "RUNNING", samples=200),
    )
    assert len(dashboard.asked) == 1


@pytest.mark.parametrize("name", ["raysubmit_{}", "digits-1-r{}"])
def test_however_many_jobs_a_head_says_have_failed_one_log_is_read(name: str) -> None:
    failed = many_failed("digits-1", *(name.format(i) for i in range(101, 10_101)))

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"logs": "the end"}' if request.path.endswith("/logs") else failed)

    dashboard = Door(answer)
    assert ask_head(ask, dashboard).jobs == (RayJob("digits-1", "FAILED", samples=0, log="the end"),)
    assert [path for _, path, _ in dashboard.asked] == ["/api/jobs/", "/api/jobs/digits-1/logs"]


def test_a_head_with_more_of_the_operators_own_jobs_than_there_can_be_is_silent() -> None:
    listed = many_failed("digits-1", *(f"digits-1-r{i}" for i in range(2, 10_000)))
    with pytest.raises(HeadDidNotAnswer, match="more than 100 jobs of digits-1"):
        ask_head(ask, Door(says(200, listed)))


@pytest.mark.parametrize("word", ["a plain word\n", "C:\\a", '"', "\u00e9", "\U0001f600", "\x1b[0m"])
def test_of_a_log_of_many_megabytes_the_end_is_read(word: str) -> None:
    log = word * (1_000_000) + '\n{"event": "error"}\nthe end'

    async def answer(request: web.Request) -> web.StreamResponse:
        found = {"logs": log} if request.path.endswith("/logs") else [submitted("digits-1", "FAILED")]
        return web.json_response(found)

    (job,) = ask_head(ask, Door(answer)).jobs
    assert job.log == log[-4096:]


def endless_log(megabytes: int) -> Answers:
    """A failed job with a log of so many, which cost this process nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/logs"):
            return web.json_response([submitted("digits-1", "FAILED")])
        response, megabyte = web.StreamResponse(), b"a" * (1 << 20)
        await response.prepare(request)
        await response.write(b'{"logs": "')
        for _ in range(megabytes):
            await response.write(megabyte)
        await response.write(b'the end"}')
        return response

    return answer


def test_of_a_long_log_no_more_is_held_than_its_end() -> None:
    tracemalloc.start()
    try:
        (job,) = ask_head(ask, Door(endless_log(48))).jobs
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.log == "a" * 4089 + "the end"
    assert most < 16 << 20


def test_a_log_without_end_is_left_and_hides_no_job() -> None:
    assert ask_head(ask, Door(endless_log(1_000))).jobs == (RayJob("digits-1", "FAILED", samples=100),)


@pytest.mark.parametrize("log", ["", "no JSON", '{"logs": 7}', "x" * 5_000_000, '{"logs": "' + "\\ud83d" * 1_000_000])
def test_a_log_that_is_not_what_ray_answers_hides_no_job(log: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/logs"):
            return web.Response(text=log)
        return web.json_response([submitted("digits-1", "FAILED")])

    (job,) = ask_head(ask, Door(answer)).jobs
    assert (job.id, job.state, job.log) == ("digits-1", "FAILED", "")


def test_an_answer_without_end_is_left_after_a_megabyte() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"[" * 65_536)
            sent += 65_536

    with pytest.raises(HeadDidNotAnswer, match="more than 1048576 bytes"):
        ask_head(ask, Door(endless))
    assert sent < 16 << 20


def test_nothing_is_unpacked() -> None:
    packed = gzip.compress(b" " * (1 << 28) + b"[]")
    assert len(packed) < 1 << 20
    with pytest.raises(HeadDidNotAnswer, match="not what Ray answers"):
        ask_head(ask, Door(says(200, packed, {"Content-Encoding": "gzip"})))


def test_no_redirect_is_followed_and_no_token_travels_on() -> None:
    elsewhere = Door(says(200, "[]"))

    async def run() -> None:
        async with elsewhere.open() as target:
            door = Door(says(307, "", {"Location": f"{target}/api/jobs/"}))
            async with door.open() as dashboard, new_session() as session:
                await ask(HeadClient(session, dashboard, dashboard, TOKENS))

    with pytest.raises(HeadDidNotAnswer, match="307"):
        asyncio.run(run())
    assert elsewhere.asked == []


def test_an_answer_that_only_drips_is_not_waited_for() -> None:
    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.1)

    with pytest.raises(HeadDidNotAnswer, match="in time"):
        ask_head(ask, Door(drips))


PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def test_the_picture_comes_as_it_is() -> None:
    driver = Door(says(200, PNG))
    assert ask_head(HeadClient.grid, Door(nobody()), driver) == PNG
    assert driver.asked == [("GET", "/grid.png", TOKENS.progress)]


@pytest.mark.parametrize("driver", [says(404, "none yet"), says(200, "<html>"), says(500, PNG)])
def test_what_is_no_picture_is_none(driver: Answers) -> None:
    assert ask_head(HeadClient.grid, Door(nobody()), Door(driver)) is None


def test_a_picture_that_is_too_large_for_a_configmap_is_not_taken() -> None:
    with pytest.raises(HeadDidNotAnswer, match="more than 49152 bytes"):
        ask_head(HeadClient.grid, Door(nobody()), Door(says(200, PNG + bytes(48 * 1024))))
