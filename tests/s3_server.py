"""A real S3 server in a process of its own on 127.0.0.1 (moto's), which fails and dawdles as it is told.

``python -m tests.s3_server PORT_FILE`` serves until it is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.dask_process import ROOT

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a-key-for-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests"}
CONTROL = "/_control"
CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
SECONDS = 60


class Unreliable:
    """moto's application; the next requests fail with 503, and all take a while, if it is told so."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.failures, self.status, self.seconds, self.method, self.where = 0, 503, 0.0, "", ""
        self.is_blind = False
        self.stalls, self.stalls_within = "", False
        self.log: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
        if path == CONTROL:
            answer = json.dumps(self.log).encode()
            self.failures, self.seconds = int(query.get("failures", 0)), float(query.get("seconds", 0))
            self.method, self.where, self.log = query.get("method", ""), query.get("where", ""), []
            self.status, self.is_blind = int(query.get("status", 503)), "blind" in query
            self.stalls, self.stalls_within = query.get("stalls", ""), "within" in query
            start_response("200 OK", [("Content-Type", "application/json")])
            return [answer]
        self.log.append(("LIST" if "list-type" in query else method, path))
        time.sleep(self.seconds)
        meant = self.method in ("", method) and self.where in path
        if self.failures and meant:
            self.failures -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{self.status} {HTTPStatus(self.status).phrase}", [("Content-Type", "text/plain")])
            return [b"not now"]
        if self.is_blind:
            environ = {key: value for key, value in environ.items() if key not in CONDITIONS}
        if self.stalls and self.stalls in path and meant:
            return self._stall(environ, start_response)
        return self.application(environ, start_response)

    def _stall(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        """Answer not at all, or with half of the body and no more, until it is told otherwise."""
        stalls = self.stalls
        if self.stalls_within:
            whole = b"".join(self.application(environ, start_response))
            yield whole[: len(whole) // 2]
        while self.stalls == stalls:
            time.sleep(0.05)
        raise ConnectionError


class S3:
    """The server, seen from a test."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def control(self, **settings: Any) -> list[tuple[str, str]]:
        """Set how the server fails; return the requests (method, path) since the last call.

        `failures` requests of a `method` `where` the path holds a text are answered with `status`; all take `seconds`;
        a `blind` server does not heed conditions. A request of the `method` whose path holds the text `stalls` is never
        answered, or where it stalls `within`, half.
        """
        with urllib.request.urlopen(f"{self.endpoint}{CONTROL}?{urllib.parse.urlencode(settings)}") as answer:
            return [(method, path) for method, path in json.loads(answer.read())]

    def make_bucket(self, name: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).read()
        return f"s3://{name}"

    @property
    def storage(self) -> dict[str, Any]:
        return {"endpoint": self.endpoint, "region": "us-east-1"}


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    port_file = folder / "port"
    command = [sys.executable, "-m", "tests.s3_server", str(port_file)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        until = time.monotonic() + SECONDS
        while not port_file.exists():
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.05)
        yield S3(f"http://127.0.0.1:{port_file.read_text()}")
    finally:
        process.kill()
        process.wait()


def main() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def log_request(self, *arguments: Any) -> None:
            pass

    port_file = Path(sys.argv[1])
    application = Unreliable(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    building = port_file.with_suffix(".building")
    building.write_text(str(server.port))
    os.replace(building, port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
