"""A chat completions server whose every reply is what a function makes of the request; over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Handler = Callable[[Body], tuple[int, Any]]


def said(content: object, finish: str | None = "stop", n: int = 1, **more: Any) -> tuple[int, Body]:
    """A reply of status 200; `more` are further fields of its message."""
    message = {"role": "assistant", "content": content, **more}
    choices = [{"index": place, "message": message, "finish_reason": finish} for place in range(n)]
    usage = {"prompt_tokens": 10, "completion_tokens": 2 * n, "total_tokens": 10 + 2 * n}
    return 200, {"object": "chat.completion", "choices": choices, "usage": usage}


def fault(status: int, message: str, **more: Any) -> tuple[int, Body]:
    """A reply that is an error."""
    return status, {"error": {"message": message, **more}}


class ScriptedServer:
    """`bodies` are the requests that came. A list as a reply of status 200 goes out as the events of a stream."""

    def __init__(self, handler: Handler) -> None:
        self.bodies: list[Body] = []
        lock = threading.Lock()

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return None

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append(body)
                status, form = handler(body)
                data = json.dumps(form).encode()
                if body.get("stream") and status == 200 and isinstance(form, list):
                    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in form)
                    data += b"data: [DONE]\n\n"
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        server, self._http = self, ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
