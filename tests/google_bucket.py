"""A stand-in for Google Cloud Storage on this machine: as much of its XML interface as obstore asks for, in memory.

Not a test: other tests `import google_bucket`. It checks conditions by generation, as the real one does.
"""

from __future__ import annotations

import http.server
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

WHEN = "Mon, 01 Jan 2024 00:00:00 GMT"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    objects: ClassVar[dict[str, tuple[bytes, int]]]  # content and generation, by name
    lock: ClassVar[threading.Lock]

    def _split(self) -> tuple[str, dict[str, str]]:
        """Returns the object's name, "" for the bucket, and the query."""
        url = urllib.parse.urlsplit(self.path)
        _, _, name = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        return name, dict(urllib.parse.parse_qsl(url.query))

    def do_PUT(self) -> None:
        name, _ = self._split()
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.lock:
            stands = self.objects.get(name, (b"", 0))[1]
            if wanted is not None and int(wanted) != stands:
                self._answer(412)
                return
            generation = max([0, *(number for _, number in self.objects.values())]) + 1
            self.objects[name] = (data, generation)
        self._answer(200, headers={"ETag": f'"{generation}"', "x-goog-generation": str(generation)})

    def do_GET(self) -> None:
        name, query = self._split()
        if not name:
            self._list(query)
            return
        found = self.objects.get(name)
        if found is None:
            self._answer(404)
            return
        data, generation = found
        about = {"ETag": f'"{generation}"', "x-goog-generation": str(generation), "Last-Modified": WHEN}
        status, span = 200, self.headers.get("Range")
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(len(data), int(last or len(data)) + 1)
            if start >= len(data):
                self._answer(416)
                return
            about["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            status, data = 206, data[start:stop]
        self._answer(status, data, about)

    do_HEAD = do_GET  # noqa: N815

    def do_DELETE(self) -> None:
        name, _ = self._split()
        self._answer(204 if self.objects.pop(name, None) else 404)

    def _list(self, query: dict[str, str]) -> None:
        names = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")))
        rows = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{self.objects[name][1]}</ETag><Size>{len(self.objects[name][0])}</Size></Contents>"
            for name in names
            if name > query.get("start-after", "")
        )
        text = f"<?xml version='1.0'?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{rows}"
        self._answer(200, f"{text}</ListBucketResult>".encode())

    def _answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def google_bucket() -> Iterator[str]:
    """Gives the address of a running store with an empty bucket, for STORAGE_EMULATOR_HOST."""
    handler = type("Handler", (_Handler,), {"objects": {}, "lock": threading.Lock()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
