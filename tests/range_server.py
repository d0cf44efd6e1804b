"""A web server on 127.0.0.1 that sends parts of files, counts what it is asked for, and fails and lies as it is told.

``python -m tests.range_server FOLDER PORT_FILE SECONDS`` serves until it is killed, each answer after some seconds;
``/_control`` returns what was asked since the last time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTROL = "/_control"
ENDLESS_BYTES = 2**28
ENDLESS = {"Content-Length": str(ENDLESS_BYTES)}


@dataclass
class Behaviour:
    """How the server answers."""

    folder: Path
    log: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path and bytes of the body of each answer."""
    fault: str = ""
    """What is wrong with answers: see `Handler`."""
    faults: int = 2**31
    """How many answers are wrong."""
    spared: int = 0
    """How many answers are right before."""
    seconds: float = 0.0
    """What each answer takes."""
    tag: str = "first"
    """Of the ETag; empty: none is sent."""
    modified: str = "Mon, 01 Jan 2024 00:00:00 GMT"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self) -> str:
        with self.lock:
            if self.spared:
                self.spared -= 1
                return ""
            if self.fault and self.faults:
                self.faults -= 1
                return self.fault
        return ""

    @property
    def gets(self) -> list[int]:
        """The bytes of the answers to GET."""
        return [num_bytes for method, _, num_bytes in self.log if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    """Answers with a part of a file, or with what the fault says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        if self.path == CONTROL:
            data = json.dumps(behaviour.log).encode()
            behaviour.log = []
            self._answer(200, data, {})
            return
        time.sleep(behaviour.seconds)
        path = behaviour.folder / urllib.parse.unquote(self.path.lstrip("/"))
        if not path.is_file():
            self._answer(404, b"", {})
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            wanted = _parse_range(self.headers.get("Range"), size)
            headers = {"ETag": f'"{behaviour.tag}"'} if behaviour.tag else {}
            headers |= {"Last-Modified": behaviour.modified} if behaviour.modified else {}
            fault = behaviour.next_fault()
            if fault:
                self._fail(fault, wanted, size, headers)
            elif wanted is None:
                self._answer(200, file.read(), headers)
            elif wanted[0] >= size:
                self._answer(416, b"", {"Content-Range": f"bytes */{size}"})
            else:
                file.seek(wanted[0])
                self._answer(206, file.read(wanted[1] - wanted[0]), headers | _content_range(*wanted, size))

    def _fail(self, fault: str, wanted: tuple[int, int] | None, size: int, headers: dict[str, str]) -> None:
        """Answer wrongly.

        A number: that status. A URL: a redirect there. `whole`: no part is sent. `cut`: half of the body and no more.
        `short`, `long`: fewer or more bytes than the range says. `elsewhere`: another range. `endless`: without end.
        `huge`: a length that is not true. `unknown`: a whole file of unknown length.
        """
        start, stop = wanted or (0, size)
        part = headers | _content_range(start, stop, size)
        if fault.isdigit():
            self._answer(int(fault), b"not now", {})
        elif ":" in fault:
            self._answer(302, b"", {"Location": fault})
        elif fault == "whole":
            whole = urllib.parse.unquote(self.path.lstrip("/"))
            self._answer(200, (self.server.behaviour.folder / whole).read_bytes(), headers)
        elif fault == "cut":
            self._answer(206, bytes((stop - start) // 2), part, length=stop - start)
        elif fault in ("short", "long"):
            self._answer(206, bytes((stop - start) // 2 if fault == "short" else 2 * (stop - start)), part)
        elif fault == "elsewhere":
            self._answer(206, bytes(stop - start), headers | _content_range(start + 1, stop + 1, size + 1))
        elif fault == "huge":
            self._answer(200, bytes(1000), headers, length=2**40)
        else:
            self._endless(206 if fault == "endless" else 200, part if fault == "endless" else headers)

    def _endless(self, status: int, headers: dict[str, str]) -> None:
        is_chunked = status != 206
        self._head(status, headers | ({"Transfer-Encoding": "chunked"} if is_chunked else ENDLESS))
        for _ in range(ENDLESS_BYTES // 2**20):
            self.wfile.write(b"100000\r\n" + bytes(2**20) + b"\r\n" if is_chunked else bytes(2**20))
        self.close_connection = True

    def _answer(self, status: int, data: bytes, headers: dict[str, str], length: int | None = None) -> None:
        is_head = self.command == "HEAD"
        with self.server.behaviour.lock:
            if self.path != CONTROL:
                self.server.behaviour.log.append((self.command, self.path, 0 if is_head else len(data)))
        self._head(status, headers | {"Content-Length": str(len(data) if length is None else length)})
        if not is_head:
            self.wfile.write(data)
        if length is not None:
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    """Serves a folder."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = Behaviour(folder)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that has had enough goes."""


def _parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.removeprefix("bytes=").partition("-")
    return int(first), min(size, int(last) + 1) if last else size


def _content_range(start: int, stop: int, size: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}


@contextmanager
def range_server(folder: Path) -> Iterator[tuple[str, Behaviour]]:
    """Serve a folder; yield its URL, and what changes how it is served."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.behaviour
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    server, port_file = Server(Path(sys.argv[1])), Path(sys.argv[2])
    server.behaviour.seconds = float(sys.argv[3])
    building = port_file.with_suffix(".building")
    building.write_text(str(server.server_port))
    os.replace(building, port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
