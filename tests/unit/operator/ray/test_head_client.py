"""The client of a Ray head over HTTP, with valid, invalid and hostile responses of Ray and the driver."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc

import aiohttp
import pytest
from aiohttp import web

from ddpm_operator.ray import head_client
from ddpm_operator.ray.head_client import HeadClient, HeadDidNotAnswer, new_session
from ddpm_operator.reconcile.observed import HeadResponse, RayJob
from tests.fakes.heads import TOKENS, FakeServer, Handler, call_head, not_found, responds

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


async def poll(head: HeadClient) -> HeadResponse:
    return await head.poll("digits-1")


def ray_job(name: str, state: str, samples: int = 100) -> dict[str, object]:
    return {"type": "SUBMISSION", "status": state, "submission_id": name, "metadata": {"samples": str(samples)}}


def many_failed(*names: str) -> str:
    """Returns a compact list of failed jobs, so that as many as possible fit into the size limit."""
    failed = [{"type": "SUBMISSION", "status": "FAILED", "submission_id": name} for name in names]
    return json.dumps(failed, separators=(",", ":"))


def test_jobs_and_progress_are_fetched_with_their_tokens() -> None:
    dashboard, driver = FakeServer(responds(200, json.dumps(JOBS))), FakeServer(responds(200, json.dumps(PROGRESS)))
    response = call_head(poll, dashboard, driver)
    assert response.jobs == (RayJob("digits-1", "RUNNING", samples=100),)
    assert response.progress is not None
    assert (response.progress.done, response.progress.total) == (32, 100)
    assert dashboard.requests == [("GET", "/api/jobs/", TOKENS.ray)]
    assert driver.requests == [("GET", "/progress", TOKENS.progress)]


def test_the_log_of_a_failed_job_is_fetched() -> None:
    failed = {"type": "SUBMISSION", "status": "FAILED", "submission_id": "digits-1", "message": "exit code 4"}

    async def handler(request: web.Request) -> web.StreamResponse:
        log = {"logs": "begin\n" + "x" * 10_000 + "\nthe end\n"}
        return web.json_response(log if request.path.endswith("/logs") else [failed])

    (job,) = call_head(poll, FakeServer(handler)).jobs
    assert (job.state, job.message) == ("FAILED", "exit code 4")
    assert job.log.endswith("x\nthe end\n")
    assert len(job.log) == 4096


def test_a_dead_head_node_counts_as_no_answer() -> None:
    message = "Job supervisor actor died: The actor died because its node has died. Node Id: 6e553ccb"
    failed = {"type": "SUBMISSION", "status": "FAILED", "submission_id": "digits-1", "message": message}
    with pytest.raises(HeadDidNotAnswer, match="own node has died"):
        call_head(poll, FakeServer(responds(200, json.dumps([failed]))))


def test_the_log_is_fetched_as_soon_as_the_driver_failed() -> None:
    outcome = {"reason": "ModelNotFound", "exitCode": 2, "message": "not found", "hint": ""}

    async def dashboard(request: web.Request) -> web.StreamResponse:
        return web.json_response({"logs": "error: not found"} if request.path.endswith("/logs") else JOBS)

    driver = responds(200, json.dumps({**PROGRESS, "phase": "failed", "outcome": outcome}))
    response = call_head(poll, FakeServer(dashboard), FakeServer(driver))
    assert response.jobs == (RayJob("digits-1", "RUNNING", samples=100, log="error: not found"),)


def test_submit_sends_the_job_document_and_metadata() -> None:
    bodies = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return web.json_response({"submission_id": "digits-1", "job_id": "digits-1"})

    server = FakeServer(handler)
    call_head(lambda head: head.submit("digits-1", {"n_samples": 100}, 100, "a-uid/2"), server)
    (body,) = bodies
    assert server.requests == [("POST", "/api/jobs/", TOKENS.ray)]
    assert (body["submission_id"], body["entrypoint"]) == ("digits-1", "ddpm-sample --json")
    environment = body["runtime_env"]["env_vars"]
    assert json.loads(environment.pop("DDPM_JOB")) == {"n_samples": 100}
    assert environment == {"DDPM_LOG": "digits-1", "DDPM_ONE_IMAGE": "1", "DDPM_ATTEMPT": "a-uid/2"}
    assert body["metadata"] == {"samples": "100"}


@pytest.mark.parametrize("status", [400, 500])
def test_submitting_an_existing_job_succeeds(status: int) -> None:
    message = "Traceback …\nValueError: Job with submission_id digits-1 already exists. Please use a different one."
    call_head(lambda head: head.submit("digits-1", {}, 100), FakeServer(responds(status, message)))


def test_submit_fails_while_the_job_agent_starts() -> None:
    server = FakeServer(responds(500, "No available agent to submit job, please try again later."))
    with pytest.raises(HeadDidNotAnswer, match="500: No available agent"):
        call_head(lambda head: head.submit("digits-1", {}, 100), server)


def test_an_error_is_the_last_line_of_its_traceback() -> None:
    server = FakeServer(responds(500, "Traceback\n  File a\n  File b\nOSError: \x1b[31mno space left\x1b[0m"))
    with pytest.raises(HeadDidNotAnswer) as caught:
        call_head(poll, server)
    assert str(caught.value) == "Ray answered 500: OSError: no space left"


def test_a_closed_port_counts_as_no_answer() -> None:
    async def run() -> None:
        async with FakeServer(not_found()).open() as closed:
            pass
        async with FakeServer(not_found()).open() as driver, new_session() as session:
            await poll(HeadClient(session, closed, driver, TOKENS))

    with pytest.raises(HeadDidNotAnswer):
        asyncio.run(run())


@pytest.mark.parametrize(
    "driver",
    [
        not_found(),
        responds(401, "401: Unauthorized"),
        responds(200, "no JSON"),
        responds(200, json.dumps(PROGRESS | {"version": 2})),
        responds(200, json.dumps(PROGRESS | {"done": -1})),
        responds(500, json.dumps(PROGRESS)),
    ],
)
def test_an_invalid_progress_response_is_ignored(driver: Handler) -> None:
    response = call_head(poll, FakeServer(responds(200, json.dumps(JOBS))), FakeServer(driver))
    assert response == HeadResponse((RayJob("digits-1", "RUNNING", samples=100),), progress=None)


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "{}",
        "[" * 100_000,
        '[{"submission_id": "digits-1"}]',
        json.dumps([ray_job("digits-1", "LOST")]),
        json.dumps([{**ray_job("digits-1", "RUNNING"), "type": "DRIVER"}]),
    ],
)
def test_an_invalid_list_of_jobs_counts_as_no_answer(body: str) -> None:
    with pytest.raises(HeadDidNotAnswer, match="not a valid response of Ray"):
        call_head(poll, FakeServer(responds(200, body)))


def test_jobs_of_other_programs_are_ignored() -> None:
    others = [7, {}, {"submission_id": ["a"]}, ray_job("raysubmit_x", "FAILED"), ray_job("digits-2", "LOST")]
    listed = [*others, ray_job("digits-1-r4", "FAILED"), ray_job("digits-1-r2", "RUNNING", 200), *JOBS]
    dashboard = FakeServer(responds(200, json.dumps(listed)))
    assert call_head(poll, dashboard).jobs == (
        RayJob("digits-1", "RUNNING", samples=100),
        RayJob("digits-1-r2", "RUNNING", samples=200),
    )
    assert len(dashboard.requests) == 1


@pytest.mark.parametrize("name", ["raysubmit_{}", "digits-1-r{}"])
def test_at_most_one_log_is_fetched(name: str) -> None:
    failed = many_failed("digits-1", *(name.format(i) for i in range(101, 10_101)))

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"logs": "the end"}' if request.path.endswith("/logs") else failed)

    dashboard = FakeServer(handler)
    assert call_head(poll, dashboard).jobs == (RayJob("digits-1", "FAILED", samples=0, log="the end"),)
    assert [path for _, path, _ in dashboard.requests] == ["/api/jobs/", "/api/jobs/digits-1/logs"]


def test_too_many_own_jobs_count_as_no_answer() -> None:
    listed = many_failed("digits-1", *(f"digits-1-r{i}" for i in range(2, 10_000)))
    with pytest.raises(HeadDidNotAnswer, match="more than 100 jobs of digits-1"):
        call_head(poll, FakeServer(responds(200, listed)))


@pytest.mark.parametrize("text", ["plain text\n", "C:\\a", '"', "\u00e9", "\U0001f600", "\x1b[0m"])
def test_the_end_of_a_large_log_is_returned(text: str) -> None:
    log = text * 1_000_000 + '\n{"event": "error"}\nthe end'

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"logs": log} if request.path.endswith("/logs") else [ray_job("digits-1", "FAILED")])

    (job,) = call_head(poll, FakeServer(handler)).jobs
    assert job.log == log[-4096:]


def endless_log(megabytes: int) -> Handler:
    """Returns a handler with a failed job and a long log, which is generated as it is sent."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/logs"):
            return web.json_response([ray_job("digits-1", "FAILED")])
        response, megabyte = web.StreamResponse(), b"a" * (1 << 20)
        await response.prepare(request)
        await response.write(b'{"logs": "')
        for _ in range(megabytes):
            await response.write(megabyte)
        await response.write(b'the end"}')
        return response

    return handler


def test_only_the_end_of_a_log_is_kept_in_memory() -> None:
    tracemalloc.start()
    try:
        (job,) = call_head(poll, FakeServer(endless_log(48))).jobs
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.log == "a" * 4089 + "the end"
    assert peak < 16 << 20


def test_an_endless_log_is_ignored() -> None:
    assert call_head(poll, FakeServer(endless_log(1_000))).jobs == (RayJob("digits-1", "FAILED", samples=100),)


@pytest.mark.parametrize("log", ["", "no JSON", '{"logs": 7}', "x" * 5_000_000, '{"logs": "' + "\\ud83d" * 1_000_000])
def test_an_invalid_log_is_ignored(log: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/logs"):
            return web.Response(text=log)
        return web.json_response([ray_job("digits-1", "FAILED")])

    (job,) = call_head(poll, FakeServer(handler)).jobs
    assert (job.id, job.state, job.log) == ("digits-1", "FAILED", "")


def test_an_endless_response_is_cut_off_after_a_megabyte() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"[" * 65_536)
            sent += 65_536

    with pytest.raises(HeadDidNotAnswer, match="more than 1048576 bytes"):
        call_head(poll, FakeServer(endless))
    assert sent < 16 << 20


def test_responses_are_not_decompressed() -> None:
    compressed = gzip.compress(b" " * (1 << 24) + b"[]")
    assert len(compressed) < 1 << 20
    with pytest.raises(HeadDidNotAnswer, match="not a valid response of Ray"):
        call_head(poll, FakeServer(responds(200, compressed, {"Content-Encoding": "gzip"})))


def test_redirects_are_not_followed() -> None:
    other = FakeServer(responds(200, "[]"))

    async def run() -> None:
        async with other.open() as target:
            redirecting = FakeServer(responds(307, "", {"Location": f"{target}/api/jobs/"}))
            async with redirecting.open() as dashboard, new_session() as session:
                await poll(HeadClient(session, dashboard, dashboard, TOKENS))

    with pytest.raises(HeadDidNotAnswer, match="307"):
        asyncio.run(run())
    assert other.requests == []


def test_a_slow_response_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_client, "_READ_TIMEOUT", aiohttp.ClientTimeout(total=0.5))

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    with pytest.raises(HeadDidNotAnswer, match="in time"):
        call_head(poll, FakeServer(drip))


PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def test_the_preview_is_returned_unchanged() -> None:
    driver = FakeServer(responds(200, PNG))
    assert call_head(HeadClient.fetch_preview, FakeServer(not_found()), driver) == PNG
    assert driver.requests == [("GET", "/grid.png", TOKENS.progress)]


@pytest.mark.parametrize("driver", [responds(404, "none yet"), responds(200, "<html>"), responds(500, PNG)])
def test_a_response_other_than_a_png_is_no_preview(driver: Handler) -> None:
    assert call_head(HeadClient.fetch_preview, FakeServer(not_found()), FakeServer(driver)) is None


def test_a_too_large_preview_is_rejected() -> None:
    with pytest.raises(HeadDidNotAnswer, match="more than 49152 bytes"):
        call_head(HeadClient.fetch_preview, FakeServer(not_found()), FakeServer(responds(200, PNG + bytes(48 * 1024))))
