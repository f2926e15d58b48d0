"""A model hub on loopback, for the real huggingface_hub client: revisions, trees, redirects to a storage host, errors."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
BIG = 4096
"""Files from this size on are in the large file storage: on another host, with their sha256 stated."""
PAGE = 3
"""Entries of a page of a tree."""


@dataclass
class Repository:
    """A repository.

    Attributes:
        commits: commit -> files.
        revisions: branch, tag or pull request -> commit.
        token: needed to read it; None for a public one.
        gated: whether that token's account has not accepted its conditions.
    """

    commits: dict[str, Files] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, files: Files, revision: str = "main") -> str:
        """Makes a commit the head of a revision, and returns it."""
        lines = [name.encode() + content for name, content in sorted(files.items())]
        commit = hashlib.sha1(b"\0".join([*lines, str(len(self.commits)).encode()])).hexdigest()  # noqa: S324
        self.commits[commit] = dict(files)
        self.revisions[revision] = commit
        return commit


@dataclass
class Hub:
    """A running hub.

    Attributes:
        endpoint: its URL; `storage` is that of the host to which large files redirect.
        repositories: ``org/name`` -> repository.
        requests: every request as (server, method, path, Authorization header or "").
        answer: called first with (server, method, path): the status and headers to answer with instead, or None.
        cut: how many further answers of the storage host end in the middle.
        extra: bytes that the storage host sends beyond the stated size.
    """

    endpoint: str = ""
    storage: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    answer: Callable[[str, str, str], tuple[int, dict[str, str]] | None] = lambda *_: None
    cut: int = 0
    extra: int = 0
    redirect: str | None = None

    def downloads(self) -> list[str]:
        """Returns the paths in the repository of all files that were sent, from either host."""
        return [path.split("/resolve/")[-1].partition("/")[2] for _, method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path]

    def tokens(self, server: str) -> set[str]:
        """Returns the Authorization headers that a server has seen."""
        return {header for name, *_, header in self.requests if name == server}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Runs a hub and its storage host until the context ends."""
    hub = Hub()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, name)) for name in ("hub", "storage")]
    hub.endpoint, hub.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(hub: Hub, server_name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond()

        def do_HEAD(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def log_message(self, *_: object) -> None:
            pass

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            hub.requests.append((server_name, self.command, self.path, self.headers.get("Authorization") or ""))
            instead = hub.answer(server_name, self.command, path)
            if instead is not None:
                self._send(instead[0], instead[1], b"{}")
            elif server_name == "storage":
                self._storage(path)
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path):
                self._api(match[1], match[2], unquote(match[3] or "main"), unquote(match[4] or ""), body)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
                self._resolve(match[1], unquote(match[2]), unquote(match[3]))
            else:
                self._error(404, "RepoNotFound")

        def _files(self, repo_id: str, revision: str) -> tuple[str, Files] | None:
            repository = hub.repositories.get(repo_id)
            if repository is None or repository.token not in (None, self.headers.get("Authorization", "")[7:] or "?"):
                self._error(401, "RepoNotFound")
                return None
            if repository.gated:
                self._error(403, "GatedRepo")
                return None
            commit = repository.revisions.get(revision, revision)
            if commit not in repository.commits:
                self._error(404, "RevisionNotFound")
                return None
            return commit, repository.commits[commit]

        def _api(self, repo_id: str, kind: str | None, revision: str, folder: str, body: bytes) -> None:
            found = self._files(repo_id, revision)
            if found is None:
                return
            commit, files = found
            if kind == "paths-info":
                asked = [part.partition("=")[2] for part in unquote(body.decode()).split("&") if part.startswith("paths")]
                paths = asked or json.loads(body or b"{}").get("paths", [])
                self._json([_entry(name, files[name]) for name in paths if name in files])
            elif kind == "tree":
                prefix = f"{folder}/" if folder else ""
                entries = [_entry(name, files[name]) for name in sorted(files) if name.startswith(prefix)]
                if not entries:
                    self._error(404, "EntryNotFound")
                    return
                first = int(re.search(r"cursor=(\d+)", self.path)[1]) if "cursor=" in self.path else 0  # type: ignore[index]
                headers = {}
                if first + PAGE < len(entries):
                    url = f"{hub.endpoint}{self.path.partition('?')[0]}?recursive=true&cursor={first + PAGE}"
                    headers["Link"] = f'<{url}>; rel="next"'
                self._json(entries[first : first + PAGE], headers)
            else:
                self._json({"id": repo_id, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

        def _resolve(self, repo_id: str, revision: str, name: str) -> None:
            found = self._files(repo_id, revision)
            if found is None:
                return
            commit, files = found
            if name not in files:
                self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
                return
            content = files[name]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            if len(content) < BIG:
                self._send(200, headers, content)
                return
            headers |= {
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": headers["ETag"],
                "Location": hub.redirect or f"{hub.storage}/{repo_id}/resolve/{commit}/{name}?Signature=topsecret",
            }
            self._send(302, headers, b"")

        def _storage(self, path: str) -> None:
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path)
            assert match is not None
            content = hub.repositories[match[1]].commits[match[2]][match[3]] + b"x" * hub.extra
            first = 0
            if range_ := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                first = int(range_[1])
            headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
            if hub.cut:
                hub.cut -= 1
                self._send(206 if first else 200, headers, content[first:], sent=(len(content) - first) // 2)
                self.close_connection = True
                return
            self._send(206 if first else 200, headers, content[first:])

        def _json(self, document: object, headers: dict[str, str] | None = None) -> None:
            self._send(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())

        def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
            self._send(status, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, b"{}")

        def _send(self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:sent])
                self.wfile.flush()

    return Handler


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
    if len(content) >= BIG:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
