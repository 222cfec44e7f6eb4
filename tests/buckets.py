"""An S3 bucket on this machine for tests: moto's server, behind a proxy that counts requests and injects faults.

Not a test: other tests `import buckets`. Needs moto and boto3 (`pip install 'facelabel-pipeline[dev]'`); without them
`bucket_server` skips the test with that reason.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

BUCKET = "faces"
KEYS = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "y",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
Fault = Callable[["_Handler"], bool]  # answers a request wrongly and returns True, or returns False


@dataclass
class Bucket:
    """A running store with one empty bucket.

    Attributes:
        port: of the proxy.
        requests: (method, path and query) of every request so far.
        sent: bytes of the bodies of all answers to GETs of objects.
        faults: called before each request, first to last, until one has answered it.
    """

    port: int
    client: Any
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the store answers."""
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, data: bytes) -> None:
        """Stores an object."""
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def get(self, name: str) -> bytes:
        """Returns an object's bytes."""
        return bytes(self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read())

    def names(self, prefix: str = "") -> list[str]:
        """Returns the names of all objects below a prefix, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", ()))

    def empty(self) -> None:
        """Removes all objects and forgets counts and faults."""
        self.faults.clear()
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=name)
        self.forget()

    def forget(self) -> None:
        """Starts counting anew."""
        self.requests.clear()
        self.sent = 0

    def count(self, method: str, part: str = "") -> int:
        """Returns the number of requests of a method whose path and query contain `part`."""
        return sum(how == method and part in what for how, what in self.requests)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet, else each waits 40 ms for an acknowledgement
    disable_nagle_algorithm = True
    bucket: Bucket
    behind: int  # port of moto

    def _serve(self) -> None:
        body = self._read = self._body()
        self.bucket.requests.append((self.command, self.path))
        for fault in list(self.bucket.faults):
            if fault(self):
                return
        self._forward(body)

    def forward(self) -> None:
        """Serves a request as if there were no fault."""
        self._forward(self._read)

    def _forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if self.command == "GET" and "list-type" not in self.path:
            self.bucket.sent += len(data)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()


@contextlib.contextmanager
def bucket_server() -> Iterator[Bucket]:
    """Gives a store with one empty bucket; skips the test where moto is not installed."""
    pytest.importorskip("moto", reason="S3 tests need moto: pip install 'facelabel-pipeline[dev]'")
    boto3 = pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'facelabel-pipeline[dev]'")
    pytest.importorskip("obstore", reason="S3 tests need obstore: pip install 'facelabel-pipeline[s3]'")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, behind = moto.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{behind}",
        aws_access_key_id="x",
        aws_secret_access_key="y",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    handler = type("Handler", (_Handler,), {"behind": behind})
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    bucket = Bucket(proxy.server_address[1], client)
    handler.bucket = bucket  # type: ignore[attr-defined]
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield bucket
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


# --- faults -----------------------------------------------------------------------------------------------------------


def failing(times: int, how: Callable[[_Handler], None], *, method: str = "", part: str = "") -> Fault:
    """Returns a fault that answers the first `times` fitting requests wrongly, then no more."""
    left = [times]
    lock = threading.Lock()

    def fault(handler: _Handler) -> bool:
        if method not in ("", handler.command) or part not in handler.path:
            return False
        with lock:
            if left[0] <= 0:
                return False
            left[0] -= 1
        how(handler)
        return True

    return fault


def server_error(handler: _Handler) -> None:
    """Answers 500."""
    handler.send_response(500)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def refused(handler: _Handler) -> None:
    """Answers 403."""
    handler.send_response(403)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def reset(handler: _Handler) -> None:
    """Ends the connection without an answer."""
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def cut_off(handler: _Handler) -> None:
    """Promises a thousand bytes, sends ten, and ends the connection."""
    handler.send_response(206)
    for name, value in (("Content-Length", "1000"), ("Content-Range", "bytes 0-999/1000"), ("ETag", '"half"')):
        handler.send_header(name, value)
    handler.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)
    handler.wfile.flush()
    reset(handler)


def stalled(seconds: float) -> Callable[[_Handler], None]:
    """Returns a fault that says nothing for so long, then ends the connection."""

    def stall(handler: _Handler) -> None:
        time.sleep(seconds)
        reset(handler)

    return stall
