"""A real judge's server on this machine, answering as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What a server does at a request: (status, the words of its reply).
Step = tuple[int, str]


@dataclass(slots=True)
class JudgeServer:
    """Its address, and every request it was sent: (path, headers, body)."""

    url: str
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)


@contextmanager
def judge_server(steps: Sequence[Step], *, raw: bool = False, retry_after: str = "") -> Iterator[JudgeServer]:
    """Serve the steps in order, the last one for ever; `raw` sends the words as the whole body."""
    lock, left = threading.Lock(), list(steps)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                status, words = left.pop(0) if len(left) > 1 else left[0]
                server.requests.append((self.path, dict(self.headers), body))
            sent = words if raw or status != 200 else json.dumps({"choices": [{"message": {"content": words}}]})
            self.send_response(status)
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(sent.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = JudgeServer(url=f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
