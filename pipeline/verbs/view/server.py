"""An HTTP server for this machine alone: the page, and what it asks of the rasters.

Only GET; only for requests that name this machine as their host (else a page of anybody could rebind its name and ask);
only the files of a list and the rasters that were named: no path of the disk comes from a request.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.model.errors import RasterpipeError, UsageError
from pipeline.picture.color_map import MAPS
from pipeline.verbs.view.gallery import TILE, Gallery, bar
from pipeline.verbs.view.query import BadQuery, Query

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/leaflet.js": ("leaflet.js", "text/javascript; charset=utf-8"),
    "/leaflet.css": ("leaflet.css", "text/css; charset=utf-8"),
    "/map.js": ("map.js", "text/javascript; charset=utf-8"),
    "/panel.js": ("panel.js", "text/javascript; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
SECONDS = 30.0
"""After which a connection that says nothing is closed."""
Answer = tuple[bytes, str]


class Server(ThreadingHTTPServer):
    """Serves a gallery until it is closed; several requests at once, as many at work as there are cores."""

    daemon_threads = True

    def __init__(self, gallery: Gallery, port: int) -> None:
        self.gallery, self.at_work = gallery, threading.Semaphore(max(2, os.cpu_count() or 1))
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            remedy = "give another --port, or none" if port else "let this machine have more ports"
            raise UsageError(f"port {port} of {ADDRESS} cannot be used: {error.strerror or error}; {remedy}") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, but not that a browser no longer wants what it asked for."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may call this server."""
        return f"{ADDRESS}:{self.port}", f"localhost:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def do_GET(self) -> None:
        if self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to its own address alone")
            return
        path, _, query = self.path.partition("?")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and path != "/":
            self._refuse(HTTPStatus.FORBIDDEN, "another page asks")
            return
        try:
            body, kind = self._answer(path, query)
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing of this name")
        except BadQuery as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except RasterpipeError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        else:
            self._send(HTTPStatus.OK, body, kind, "private, max-age=3600" if path == "/tile.png" else "no-store")

    def _answer(self, path: str, query: str) -> Answer:
        if path in FILES:
            name, kind = FILES[path]
            return (PAGE / name).read_bytes(), kind
        answer = ANSWERS[path]
        with self.server.at_work:
            return answer(self.server.gallery, Query(query, self.server.gallery))

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send(status, json.dumps({"error": message}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, cache: str = "no-store") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", cache)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what http.server itself refuses, other methods among it, in our words and with our headers."""
        self.close_connection = True
        self._refuse(HTTPStatus(code), "only GET is answered" if code == HTTPStatus.NOT_IMPLEMENTED else str(message))

    def version_string(self) -> str:
        return "rasterpipe"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page asks for hundreds of tiles."""


def _json(value: Any) -> Answer:
    return json.dumps(value, allow_nan=False).encode(), "application/json"


def _rasters(gallery: Gallery, query: Query) -> Answer:
    return _json({"rasters": gallery.describe(), "maps": MAPS, "tile": TILE, "run": gallery.run})


def _tile(gallery: Gallery, query: Query) -> Answer:
    image = gallery.tile(query.raster, query.tile, query.bands, query.style)
    if image is None:
        raise KeyError("beyond the raster")
    return image, "image/png"


ANSWERS: Mapping[str, Callable[[Gallery, Query], Answer]] = {
    "/rasters.json": _rasters,
    "/style.json": lambda gallery, query: _json(gallery.style(query.raster, query.bands)),
    "/tile.png": _tile,
    "/pixel.json": lambda gallery, query: _json(gallery.pixel(query.raster, *query.pixel)),
    "/histogram.json": lambda gallery, query: _json(
        gallery.histogram(query.raster, query.region, query.bands, query.style)
    ),
    "/bar.png": lambda gallery, query: (bar(query.map), "image/png"),
}
