"""An S3 server on this machine, and a proxy before it that answers badly."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args

from datasets.storage import backend as places

Fault = Literal["403", "404", "500", "503", "drop", "lost answer", "cut", "short", "delay"]
"""What a request meets. ``drop``: no answer. ``lost answer``: the same, after it was done. ``cut``:
the body ends early. ``short``: it does, and the length that is stated is that of the rest."""
FAULTS: tuple[Fault, ...] = get_args(Fault)
WORDS = {"403": "AccessDenied", "404": "NoSuchKey", "500": "InternalError", "503": "SlowDown"}


@contextmanager
def s3_bucket() -> Iterator[str]:
    """URL of an empty bucket; the environment says how to reach it, while it is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                request = urllib.request.Request(f"{endpoint}/labels", method="PUT")
                urllib.request.urlopen(request, timeout=5)
                break
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError("the S3 server does not start")
            time.sleep(0.1)
        with environment(variables):
            yield "s3://labels"
    finally:
        server.kill()
        server.wait()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for a while; object stores are opened anew before and after."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    places.bucket_at.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        places.bucket_at.cache_clear()


class Proxy:
    """Passes requests on to a server; while ``rate`` is above 0, that share meets a fault.

    Attributes:
        faults: that are drawn from.
        done: how often each happened.
    """

    def __init__(self, endpoint: str, rng: random.Random) -> None:
        self.host = endpoint.removeprefix("http://")
        self.rng, self.rate = rng, 0.0
        self.faults: tuple[Fault, ...] = FAULTS
        self.done: Counter[str] = Counter()
        self.lock = threading.Lock()

    def draw(self, method: str) -> Fault | None:
        """The fault that the next request meets."""
        with self.lock:
            if self.rng.random() >= self.rate:
                return None
            fault = self.rng.choice(self.faults)
            if fault in ("404", "cut", "short") and method != "GET":
                fault = "503"
            self.done[fault] += 1
            return fault

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The environment leads to the proxy for a while."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                _answer(proxy, self)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: there are thousands."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            port = server.server_address[1]
            with environment({"AWS_ENDPOINT": f"http://127.0.0.1:{port}"}):
                yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _answer(proxy: Proxy, handler: BaseHTTPRequestHandler) -> None:
    length = int(handler.headers.get("Content-Length") or 0)
    sent = handler.rfile.read(length)
    fault = proxy.draw(handler.command)
    if fault == "delay":
        time.sleep(0.3)
    if fault == "drop":
        handler.close_connection = True
        return
    if fault in WORDS:
        code = WORDS[fault]
        text = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
        _send(handler, int(fault), [("Content-Type", "application/xml")], text, len(text))
        return
    connection = http.client.HTTPConnection(proxy.host, timeout=60)
    try:
        connection.request(handler.command, handler.path, sent, dict(handler.headers))
        reply = connection.getresponse()
        body, status, headers = reply.read(), reply.status, reply.getheaders()
    finally:
        connection.close()
    if fault == "lost answer":
        handler.close_connection = True
        return
    stated = len(body)
    if fault in ("cut", "short") and body:
        body = body[: len(body) // 2]
        stated = len(body) if fault == "short" else stated
    if handler.command == "HEAD":
        stated = int(dict(headers).get("Content-Length", 0))
    _send(handler, status, headers, body, stated)
    if len(body) < stated and handler.command != "HEAD":
        handler.close_connection = True


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    stated: int,
) -> None:
    with suppress(OSError):  # whoever asked may be gone
        handler.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                handler.send_header(name, value)
        if status != 204:
            handler.send_header("Content-Length", str(stated))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
