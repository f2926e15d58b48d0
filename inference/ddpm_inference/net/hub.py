"""A model repository of the Hugging Face hub, through huggingface_hub: its commit, its files, and downloads into its cache.

The server is that of ``HF_ENDPOINT``, the token that of ``HF_TOKEN`` or of huggingface_hub's own login, and the cache is
huggingface_hub's. What this module adds: connections are checked against the block list, also after redirects; the token
is sent to the hub's own origin alone; answers are bounded in size and time, and a wait for a rate limit too.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from ddpm_inference.net.blocked_addresses import BlockedAddress, refuse_blocked

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

MAX_ENTRIES = 20_000
"""Files of a repository that are listed; training runs with more keep them in subfolders."""
MAX_PAGE_BYTES = 64 << 20
MAX_WAIT = 60.0
"""Seconds that the hub may ask to wait before a retry."""
MAX_SECONDS = 1800.0
"""For one repository: its listing and all of its files."""
TIMEOUT = 30.0
"""Seconds to connect, and for each read."""
RETRY_DELAYS = (1.0, 4.0)
"""Seconds before each retry of a transient error of the listing; huggingface_hub itself retries downloads."""

Result = TypeVar("Result")


class HubError(Exception):
    """The hub could not be read. The message says why, without the token and without signed URLs.

    Args:
        hint: what the user can do; "" if the caller knows better.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotOnHub(HubError):
    """There is no such repository, revision or file, or it is not visible with this token."""


class Oversized(Exception):
    """A response was larger than it may be. Not an error of httpx, which huggingface_hub would retry."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        bytes: as the hub states it; None offline.
        sha256: as the hub states it, for files in its large file storage; else None.
    """

    bytes: int | None
    sha256: str | None = None


@dataclass(frozen=True)
class _Limits:
    """Limits of the requests of one operation."""

    origin: tuple[str, str, int]
    max_bytes: int
    deadline: float


_limits: ContextVar[_Limits | None] = ContextVar("limits", default=None)


@dataclass(frozen=True)
class HubRepository:
    """A repository at one commit.

    Attributes:
        repo_id: ``org/name``.
        commit: 40 hexadecimal digits.
        files: path -> file, below `subfolder`, to which the paths are relative.
    """

    repo_id: str
    commit: str
    subfolder: str
    files: dict[str, HubFile]
    deadline: float = field(repr=False)

    def read(self, path: str, max_bytes: int) -> bytes:
        """Returns the content of a file, from the cache if it is there.

        Raises:
            Oversized: if it is larger than `max_bytes`, or than the hub states.
            HubError: if it cannot be downloaded.
        """
        listed = self.files[path]
        if (listed.bytes or 0) > max_bytes:
            raise Oversized(f"{listed.bytes:,} bytes")
        limit = max_bytes if listed.bytes is None else listed.bytes
        name = "/".join(filter(None, (self.subfolder, path)))
        with _bounded(limit, self.deadline), _translated(self.repo_id, f"{name} at {self.commit[:12]}"):
            cached = _retried(lambda: self._download(name))
            with Path(cached).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > limit:
                    raise Oversized(f"{size:,} bytes")
                return file.read()

    def _download(self, name: str) -> str:
        """Returns the path of a file in the cache, after downloading it if needed."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return hf_hub_download(
                self.repo_id,
                name,
                revision=self.commit,
                cache_dir=_cache(),
                endpoint=_endpoint(),
                token=_token(),
                local_files_only=is_offline(),
                library_name="ddpm-inference",
            )
        except LocalEntryNotFoundError as error:
            # "Not in the cache" is what huggingface_hub says of every failed request; the true error is its cause.
            if isinstance(error.__cause__, Exception) and not is_offline():
                raise error.__cause__ from error
            raise


def is_offline() -> bool:
    """Whether only the cache may be used, by ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def open_repository(repo_id: str, revision: str | None, subfolder: str) -> HubRepository:
    """Resolves a revision to a commit, and lists the files below a folder of it.

    Args:
        revision: a branch, a tag, a commit or ``refs/pr/N``; None for the default branch.
        subfolder: "" for the whole repository.

    Raises:
        NotOnHub: if there is no such repository or revision.
        HubError: if the hub cannot be read.
    """
    _configure()
    deadline = time.monotonic() + MAX_SECONDS
    if is_offline():
        return _open_cached(repo_id, revision, subfolder, deadline)
    with _bounded(MAX_PAGE_BYTES, deadline), _translated(repo_id, _at(revision)):
        api = _api()
        commit = _retried(lambda: api.model_info(repo_id, revision=revision, timeout=TIMEOUT, token=_token()).sha)
        if commit is None or not re.fullmatch("[0-9a-f]{40}", commit):
            raise HubError(f"the hub names no commit for {repo_id}{_at(revision)}")
        files = _retried(lambda: _list(api, repo_id, commit, subfolder))
    _remember(repo_id, revision or "main", commit)
    return HubRepository(repo_id, commit, subfolder, files, deadline)


def _list(api: HfApi, repo_id: str, commit: str, subfolder: str) -> dict[str, HubFile]:
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import EntryNotFoundError

    found: dict[str, HubFile] = {}
    listed = 0
    try:
        for entry in api.list_repo_tree(repo_id, subfolder or None, recursive=True, revision=commit, token=_token()):
            listed += 1
            if listed > MAX_ENTRIES:
                raise HubError(
                    f"{repo_id} holds more than {MAX_ENTRIES:,} files", hint="add the pipeline's subfolder to the URI"
                )
            if isinstance(entry, RepoFile):
                sha256 = entry.lfs.sha256 if entry.lfs else None
                found[entry.path.removeprefix(f"{subfolder}/") if subfolder else entry.path] = HubFile(
                    entry.size, sha256
                )
    except EntryNotFoundError:
        return _single_file(api, repo_id, commit, subfolder)
    return found or _single_file(api, repo_id, commit, subfolder)


def _single_file(api: HfApi, repo_id: str, commit: str, path: str) -> dict[str, HubFile]:
    """Returns the file at a path that is no folder."""
    from huggingface_hub import RepoFile

    if not path:
        return {}
    for entry in api.get_paths_info(repo_id, path, revision=commit, token=_token()):
        if isinstance(entry, RepoFile):
            return {"": HubFile(entry.size, entry.lfs.sha256 if entry.lfs else None)}
    raise NotOnHub(f"{repo_id} has no {path} at commit {commit[:12]}", hint="check the subfolder in the URI")


def _open_cached(repo_id: str, revision: str | None, subfolder: str, deadline: float) -> HubRepository:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _translated(repo_id, _at(revision)):
        try:
            snapshot = Path(
                snapshot_download(repo_id, revision=revision, cache_dir=_cache(), local_files_only=True, token=False)
            )
        except LocalEntryNotFoundError as error:
            raise NotOnHub(
                f"{repo_id}{_at(revision)} is not in the cache, and HF_HUB_OFFLINE forbids to download it",
                hint="unset HF_HUB_OFFLINE once, or copy the cache of a machine that has it (HF_HOME)",
            ) from error
    root = snapshot / subfolder
    files = {str(path.relative_to(root)): HubFile(None) for path in root.rglob("*") if path.is_file()}
    if root.is_file() and subfolder:
        files = {"": HubFile(None)}
    return HubRepository(repo_id, snapshot.name, subfolder, files, deadline)


def _remember(repo_id: str, revision: str, commit: str) -> None:
    """Records what a revision resolved to in the cache, as huggingface_hub does, for offline mode."""
    from huggingface_hub.file_download import repo_folder_name

    reference = Path(_cache(), repo_folder_name(repo_id=repo_id, repo_type="model"), "refs", revision)
    if revision != commit and ".." not in reference.parts:
        try:
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit)
        except OSError:
            return  # Only offline mode needs it.


def _at(revision: str | None) -> str:
    return "" if revision is None else f" at {revision}"


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants._HF_DEFAULT_ENDPOINT).rstrip("/")


def _token() -> str | bool:
    """Returns the user's token; False if there is none, so that huggingface_hub looks for no other one."""
    from huggingface_hub import get_token

    return get_token() or False


_temporary_cache: list[tempfile.TemporaryDirectory[str]] = []


def _cache() -> str:
    """Returns the folder of the cache; a temporary one where huggingface_hub's own cannot be written, as in a pod."""
    from huggingface_hub import constants

    folder = Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK) or (is_offline() and folder.is_dir()):
        return str(folder)
    if not _temporary_cache:
        _temporary_cache.append(tempfile.TemporaryDirectory(prefix="ddpm-hub-"))
    return _temporary_cache[0].name


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint(), library_name="ddpm-inference")


def _configure() -> None:
    """Prepares huggingface_hub for this process: our connections, plain HTTP downloads, no output of its own."""
    # Xet is a second protocol, in native code: its connections could not be checked.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True  # it may have been imported before
    constants.HF_HUB_DISABLE_PROGRESS_BARS = True
    # Its warnings repeat URLs, and those of a storage host are signed.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    huggingface_hub.set_client_factory(_client)


def _retried(operation: Callable[[], Result]) -> Result:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for delay in RETRY_DELAYS:
        try:
            return operation()
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status != HTTPStatus.TOO_MANY_REQUESTS and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            wait = error.response.headers.get("Retry-After", "")
            delay = float(wait) if wait.isdigit() else delay
        except httpx2.TransportError:
            pass
        time.sleep(delay)
    return operation()


@contextmanager
def _bounded(max_bytes: int, deadline: float) -> Iterator[None]:
    import httpx2

    reset = _limits.set(_Limits(_origin(httpx2.URL(_endpoint())), max_bytes, deadline))
    try:
        yield
    finally:
        _limits.reset(reset)


@contextmanager
def _translated(repo_id: str, what: str) -> Iterator[None]:
    """Turns errors of huggingface_hub and httpx into `HubError`."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise NotOnHub(
            f"{repo_id} is gated, and this token has no access to it",
            hint="accept its conditions on its page on the hub, and set HF_TOKEN to a token of that account",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotOnHub(
            f"{repo_id} has no revision{what.removeprefix(' at')}", hint="check what follows the @"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotOnHub(
            f"{repo_id} is not on the hub, or is private", hint="check the name; for a private one set HF_TOKEN"
        ) from error
    except errors.EntryNotFoundError as error:
        raise NotOnHub(f"{repo_id} has no {what.strip()}" + (" in the cache" if is_offline() else "")) from error
    except errors.HfHubHTTPError as error:
        _raise_for(error.response.status_code, repo_id, error)
    except errors.HFValidationError as error:
        raise HubError(
            f"{repo_id} is not the name of a repository", hint="hf://org/name[@revision][/subfolder]"
        ) from error
    except BlockedAddress as error:
        raise HubError(str(error)) from error
    except httpx2.HTTPError as error:
        raise HubError(
            f"the hub does not answer: {_redacted(str(error) or type(error).__name__)}",
            hint="try again; HF_HUB_OFFLINE=1 uses what is in the cache, and HF_ENDPOINT chooses another hub",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Also what huggingface_hub raises for a size that differs, and for JSON of another form.
        raise HubError(
            f"{repo_id}{what if what.startswith(' ') else f': {what}'} cannot be read: {_redacted(str(error))}"
        ) from error


def _raise_for(status: int, repo_id: str, error: Exception) -> NoReturn:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            raise NotOnHub(
                f"the hub refuses access to {repo_id} ({status})",
                hint="set HF_TOKEN to a token that may read it, or unset one that has expired",
            ) from error
        case HTTPStatus.TOO_MANY_REQUESTS:
            raise HubError(
                f"the hub's rate limit is reached ({status})", hint="try again later; with HF_TOKEN the limit is higher"
            ) from error
        case _:
            raise HubError(f"the hub answers {status} for {repo_id}", hint="try again later") from error


def _redacted(text: str) -> str:
    """Returns a message on one line, without the token and without the queries of URLs, which may be signatures."""
    token = _token()
    if isinstance(token, str):
        text = text.replace(token, "…")
    return " ".join(re.sub(r"\?[^\s'\")]+", "?…", text).split())[:300]


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return (url.scheme, url.host.lower(), url.port or {"http": 80, "https": 443}.get(url.scheme, 0))


def _client() -> httpx2.Client:
    """Returns the client of all requests of huggingface_hub. Proxies of the environment are not used: behind one, the
    address of a host could not be checked."""
    import httpx2
    from huggingface_hub.utils._http import hf_request_event_hook

    return httpx2.Client(
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        max_redirects=5,
        timeout=TIMEOUT,
        transport=_transport(),
    )


def _transport() -> httpx2.BaseTransport:
    """Returns the transport, whose classes are made here so that importing this module does not import httpx."""
    import httpcore2
    import httpx2

    class CheckedBackend(httpcore2.SyncBackend):
        """Connects to the very addresses that were checked: a second DNS lookup could return others."""

        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore2.NetworkStream:
            try:
                resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise httpcore2.ConnectError(f"{host}: {error}") from error
            addresses = list(dict.fromkeys(str(address[0]) for *_, address in resolved))
            for address in addresses:
                refuse_blocked(address, "correct HF_ENDPOINT, or do not use this hub: it redirects there")
            failure: Exception = httpcore2.ConnectError(f"{host} resolves to no address")
            for address in addresses:
                try:
                    return super().connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failure = error
            raise failure

    class BoundedStream(httpx2.SyncByteStream):
        def __init__(self, stream: httpx2.SyncByteStream, limits: _Limits) -> None:
            self._stream, self._bounds = stream, limits

        def __iter__(self) -> Iterator[bytes]:
            received = 0
            for chunk in self._stream:
                received += len(chunk)
                if received > self._bounds.max_bytes:
                    raise Oversized(f"more than {self._bounds.max_bytes:,} bytes")
                if time.monotonic() > self._bounds.deadline:
                    raise HubError(f"the hub took longer than {MAX_SECONDS:g} seconds")
                yield chunk

        def close(self) -> None:
            self._stream.close()

    class CheckedTransport(httpx2.HTTPTransport):
        def __init__(self) -> None:
            super().__init__(trust_env=True)
            self._pool._network_backend = CheckedBackend()

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            limits = _limits.get()
            if limits is None:
                raise HubError("a request outside of an operation of this module")
            own = _origin(request.url) == limits.origin
            if not own:
                request.headers.pop("Authorization", None)
                request.headers.pop("Cookie", None)
                if request.url.scheme != "https" and limits.origin[0] == "https":
                    raise HubError(f"the hub redirects to {request.url.scheme}://, which is not encrypted")
            response = super().handle_request(request)
            _refuse_long_wait(response)
            response.stream = BoundedStream(cast("httpx2.SyncByteStream", response.stream), limits)
            return response

    return CheckedTransport()


def _refuse_long_wait(response: httpx2.Response) -> None:
    """Raises HubError if the hub asks to wait for longer than `MAX_WAIT`: huggingface_hub would."""
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return
    texts = [response.headers.get("Retry-After", ""), *re.findall(r"\bt=(\d+)", response.headers.get("RateLimit", ""))]
    wait = max((int(text) for text in texts if text.isdigit()), default=0)
    if wait > MAX_WAIT:
        response.close()
        raise HubError(
            f"the hub answers {response.status_code} and asks to wait for {wait:,} s",
            hint="try again later; with HF_TOKEN the rate limit is higher",
        )
