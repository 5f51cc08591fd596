"""A small S3 server in memory that takes keys of any name; rclone does not always keep their line breaks."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote

import boto3
from botocore.client import BaseClient

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
NO_SUCH_KEY = (
    b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]]

    def do_PUT(self) -> None:
        self.objects[self._name()] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"", {"ETag": '"x"'})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self.objects.get(self._name())
        if body is None:
            self._answer(404, NO_SUCH_KEY, {"Content-Type": "application/xml"})
            return
        form = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if form is None:
            self._answer(200, body, {"Accept-Ranges": "bytes"})
            return
        first, last = int(form[1]), min(int(form[2] or len(body)), len(body) - 1)
        place = f"bytes {first}-{last}/{len(body)}"
        self._answer(206, body[first : last + 1], {"Content-Range": place})

    def _name(self) -> str:
        return unquote(self.path.partition("?")[0])

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class PlainS3:
    """`env` is for clients. All buckets are there."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        self.env = {**KEYS, "AWS_ENDPOINT_URL_S3": url, "AWS_DEFAULT_REGION": "us-east-1"}

    def client(self) -> BaseClient:
        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL_S3"],
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )


@contextmanager
def plain_s3() -> Iterator[PlainS3]:
    handler = type("Handler", (_Handler,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield PlainS3(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
