"""Review in a browser, over ssh: ``python viz/inspect.py STORE --serve [PORT]``.

The scenes of the window through viser (https://viser.studio, MIT licence, optional extra
``browser``): to look, and to give verdicts; nothing is painted here. Its pages come from the
installed package, nothing is fetched from elsewhere. There is no password, so only this machine can
connect: others come through ssh.

Every browser tab has its own frame, layers, view and reviewer's name. Verdicts go to the store's
review overlay at once, and the tabs show each other's within seconds.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import logging
import os
import secrets
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from datasets.errors import SetupError
from viz.browser.tab import BrowserTab, TabStart
from viz.render.layers import LayerSettings
from viz.review.priority import ReviewPriority
from viz.review.review_queue import QueueItem
from viz.review.shared_review import SharedReview
from viz.session.session import ReviewFrame, ReviewSession

DEFAULT_PORT = 8080


def serve(
    session: ReviewSession,
    frame: ReviewFrame,
    *,
    show: LayerSettings,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    reviewer: str,
    queue: Sequence[QueueItem] = (),
    priority: ReviewPriority | None = None,
) -> None:
    """Serve until Ctrl+C or SIGTERM. Arguments and errors are those of ``serving``."""
    for ends in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the first
        signal.signal(ends, signal.default_int_handler)
    with serving(
        session,
        frame,
        show=show,
        host=host,
        port=port,
        reviewer=reviewer,
        queue=queue,
        priority=priority,
    ) as bound:
        print(f"reviewing {frame.name} at http://localhost:{bound} (this machine only)")
        print(f"from elsewhere: ssh -L {bound}:localhost:{bound} HOST, then open the same address")
        print("Ctrl+C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    print("\nstopped; all verdicts are in the store")


@contextlib.contextmanager
def serving(
    session: ReviewSession,
    frame: ReviewFrame,
    *,
    show: LayerSettings,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    reviewer: str,
    queue: Sequence[QueueItem] = (),
    priority: ReviewPriority | None = None,
) -> Iterator[int]:
    """A server that answers while the context lasts; gives its port.

    Args:
        frame, show, reviewer: what every tab begins with.
        host: an address of this machine alone.
        port: 0 takes a free one.
        queue: order of review, may be empty.
        priority: that it was made with; the estimate of wrong frames knows more with it.

    Raises:
        SetupError: viser is not installed, or the port is taken or not allowed.
        ValueError: ``host`` can be reached from other machines.
    """
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"there is no password: bind to 127.0.0.1, not {host}")
    server = _started(host, port)
    start = TabStart(
        session=session,
        shared=SharedReview(session.reviews, queue, priority or ReviewPriority()),
        frame=frame,
        show=show,
        reviewer=reviewer,
        run=secrets.token_hex(8),
    )
    tabs: dict[int, BrowserTab] = {}
    lock = threading.Lock()

    def connected(client: Any) -> None:
        if not _from_here(server, client):
            client.add_notification("Not shown", "Open this page at http://localhost", color="red")
            return
        tab = BrowserTab(client, start)
        with lock:
            tabs[client.client_id] = tab
        if client.client_id not in server.get_clients():
            left(client)

    def left(client: Any) -> None:
        with lock:
            tab = tabs.pop(client.client_id, None)
        if tab is not None:
            tab.close()

    server.on_client_connect(connected)
    server.on_client_disconnect(left)
    try:
        yield server.get_port()
    finally:
        for tab in list(tabs.values()):
            tab.close()
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()


def _started(host: str, port: int) -> Any:
    """A ``viser.ViserServer``."""
    try:
        import viser
    except ImportError as error:
        raise SetupError(
            f"the browser needs viser ({error}); pip install -e '.[browser]'"
        ) from error
    if not 0 <= port <= 65535:
        raise SetupError(f"port {port} is not in 1..65535")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        text = f"port {port} cannot be had: {reason}; name another: --serve PORT"
        raise SetupError(text) from error
    with contextlib.redirect_stdout(io.StringIO()):  # its banner
        server = viser.ViserServer(host=host, port=port, verbose=False)
    logging.getLogger("websockets.server").addFilter(_not_a_handshake)
    # the last words of a worker to a tab that was closed
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    # a page can ask for a public address through viser's servers: never
    server.request_share_url = lambda verbose=True: None
    if port not in (0, server.get_port()):
        bound = server.get_port()
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()
        raise SetupError(f"port {port} was taken meanwhile, {bound} is free: --serve {bound}")
    return server


def _not_a_handshake(record: logging.LogRecord) -> bool:
    """Whether a record is to be printed: not where something else than a browser asked, e.g. a
    monitor that sends HEAD."""
    return record.getMessage() != "opening handshake failed"


def _from_here(server: Any, client: Any) -> bool:
    """Whether the page that connects was opened at this machine's own address. Any other page in
    the reviewer's browser can connect as well, and must not see an image."""
    connection = server._websock_server._live_connections.get(client.client_id)
    if connection is None:
        return False
    origin = connection.request.headers.get("Origin")
    return origin is None or urlsplit(origin).hostname in ("localhost", "127.0.0.1", "::1")
