"""fake-gcs-server with writes as the real store takes them.

obstore speaks Google's XML interface. With `-public-host` naming its own address the server answers that interface's
reads, lists and deletes; a PUT of an object ends with 400 "invalid uploadType", as does a multipart upload. The proxy
here sends those two as uploads of the JSON interface and leaves everything else alone. Not a test.
"""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import clusters

CONDITION = "x-goog-if-generation-match"


class _Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    behind: ClassVar[int]  # port of the server
    pieces: ClassVar[dict[str, dict[int, bytes]]]  # of multipart uploads, by id

    def _serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        bucket, _, name = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not name or self.command not in ("PUT", "POST") or bucket in ("storage", "upload"):
            self._answer(*self._asked(self.command, self.path, body, dict(self.headers)))
        elif "uploads" in query:
            upload = uuid.uuid4().hex
            self.pieces[upload] = {}
            about = f"<Bucket>{bucket}</Bucket><Key>x</Key><UploadId>{upload}</UploadId>"
            self._answer_xml(f"<InitiateMultipartUploadResult>{about}</InitiateMultipartUploadResult>")
        elif "partNumber" in query:
            self.pieces[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, {"ETag": f'"{query["partNumber"]}"'}, b"")
        elif "uploadId" in query:
            pieces = self.pieces.pop(query["uploadId"])
            status, about, _ = self._uploaded(bucket, name, b"".join(pieces[number] for number in sorted(pieces)))
            self._answer_xml(
                f"<CompleteMultipartUploadResult><ETag>{about['ETag']}</ETag></CompleteMultipartUploadResult>",
                about,
                status,
            )
        else:
            self._answer(*self._uploaded(bucket, name, body))

    def _uploaded(self, bucket: str, name: str, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends an object by the JSON interface; returns what the XML interface would answer."""
        given = {"uploadType": "media", "name": name}
        if (wanted := self.headers.get(CONDITION)) is not None:
            given["ifGenerationMatch"] = wanted
        path = f"/upload/storage/v1/b/{bucket}/o?{urllib.parse.urlencode(given)}"
        status, _, answer = self._asked("POST", path, data, {"Content-Type": "application/octet-stream"})
        if status != 200:
            return status, {}, answer
        about = json.loads(answer)
        return 200, {"ETag": f'"{about["etag"]}"', "x-goog-generation": str(about["generation"])}, b""

    def _asked(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "transfer-encoding")}
        connection.request(method, path, body, {**kept, "Host": f"127.0.0.1:{self.behind}"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        dropped = ("transfer-encoding", "connection", "date", *(() if method == "HEAD" else ("content-length",)))
        return answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in dropped}, data

    def _answer_xml(self, text: str, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self._answer(status, headers or {}, f"<?xml version='1.0'?>{text}".encode())

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def fake_gcs(bucket: str) -> Iterator[str]:
    """Gives the address of a running store with one empty bucket, for STORAGE_EMULATOR_HOST."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        [str(clusters.tools() / "bin" / "fake-gcs-server"), *where, "-backend", "memory"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    handler = type("Proxy", (_Proxy,), {"behind": port, "pieces": {}})
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        clusters.wait_for(lambda: _made(port, bucket), "fake-gcs-server", 60)
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.kill()
        server.wait(30)


def _made(port: int, bucket: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        about = json.dumps({"name": bucket})
        connection.request("POST", "/storage/v1/b?project=p", about, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        time.sleep(0.2)
        return False
    finally:
        connection.close()
