"""A hostile head that tries to keep its clients busy; runs in a pod, with Python's standard library only.

It lists ten thousand failed jobs, among them the one of its argument, sends logs a byte at a time, and never responds
to requests for progress.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JOBS_PORT, PROGRESS_PORT = 8265, 8500
NEVER = threading.Event()


def jobs(own: str) -> bytes:
    names = [own, *(f"job-{number}" for number in range(10_000))]
    failed = [{"type": "SUBMISSION", "status": "FAILED", "submission_id": name} for name in names]
    return json.dumps(failed, separators=(",", ":")).encode()


class FakeHead(BaseHTTPRequestHandler):
    """Serves both ports of a head."""

    def do_GET(self) -> None:
        if self.path.endswith("/logs"):
            self._send_slowly()
        elif self.path != "/api/jobs/":
            NEVER.wait()
        listed = jobs(sys.argv[1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(listed)))
        self.end_headers()
        self.wfile.write(listed)

    def _send_slowly(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not NEVER.wait(0.1):
            self.wfile.write(b" ")


if __name__ == "__main__":
    servers = [ThreadingHTTPServer(("", port), FakeHead) for port in (JOBS_PORT, PROGRESS_PORT)]
    threading.Thread(target=servers[0].serve_forever, daemon=True).start()
    print("ready", flush=True)
    servers[1].serve_forever()
