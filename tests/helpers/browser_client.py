"""What a browser does on viser's wire, without a browser: reads the page's controls, uses them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec
import zstandard
from viser import __version__ as version
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Tab:
    """A tab on a server's port, of a page opened at ``origin``.

    ``controls`` are by uuid, each with its type and its newest state; ``scene`` by name. What the
    browser keeps is in ``storage``.
    """

    def __init__(
        self, port: int, *, origin: str | None = None, storage: dict[str, str] | None = None
    ) -> None:
        self._socket = connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=[f"viser-v{version}"],  # type: ignore[list-item]
            origin=origin,  # type: ignore[arg-type]
            compression=None,
            max_size=None,
        )
        self._storage = {} if storage is None else storage
        self._changed = threading.Condition()
        self.controls: dict[str, dict[str, Any]] = {}
        self.scene: dict[str, dict[str, Any]] = {}
        self.notifications: list[str] = []
        self.n_bytes = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send(
            "ViewerCameraMessage",
            wxyz=(1.0, 0.0, 0.0, 0.0),
            position=(0.0, 0.0, 30.0),
            fov=1.0,
            near=0.1,
            far=1000.0,
            image_height=600,
            image_width=800,
            look_at=(0.0, 0.0, 0.0),
            up_direction=(0.0, 0.0, 1.0),
        )

    def __enter__(self) -> Tab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._reader.join(timeout=5)

    def until(self, what: Callable[[], Any], *, timeout_s: float = 30.0) -> Any:
        """Wait until ``what`` gives something true, and give it."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (found := what()):
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"not seen in {timeout_s} s; the page says {self.text()!r}")
            return found

    def click(self, label: str) -> None:
        """A button, or a choice of a button group, by what is written on it."""
        for uuid, control in self.controls.items():
            if control["type"] == "GuiButtonMessage" and control["label"].startswith(label):
                self._send("GuiUpdateMessage", uuid=uuid, updates={"value": True})
                return
            if label in control.get("options", ()) and "ButtonGroup" in control["type"]:
                self._send("GuiUpdateMessage", uuid=uuid, updates={"value": label})
                return
        raise KeyError(label)

    def change(self, label: str, value: Any) -> None:
        """An input, by its label."""
        uuid = self._named(label)
        self._send("GuiUpdateMessage", uuid=uuid, updates={"value": value})
        self.controls[uuid]["value"] = value

    def value(self, label: str) -> Any:
        """What an input shows."""
        return self.controls[self._named(label)]["value"]

    def has(self, label: str) -> bool:
        """Whether a control of that label is there and to be seen."""
        with self._changed:
            return any(c.get("label") == label and c["visible"] for c in self.controls.values())

    def point(
        self, origin_m: tuple[float, float, float], direction: tuple[float, float, float]
    ) -> None:
        """Click into the 3D scene, along a ray."""
        self._send(
            "ScenePointerMessage",
            event_type="click",
            ray_origin=origin_m,
            ray_direction=direction,
            screen_pos=((0.5, 0.5),),
            modifier=None,
        )

    def ask(self, kind: str) -> None:
        """Send a message that has no content."""
        self._send(kind)

    def text(self) -> str:
        """All text on the page that is no label."""
        return "\n".join(str(c.get("content", "")) for c in list(self.controls.values()))

    def glb_bytes(self) -> int:
        """Of the newest mesh."""
        sizes = [len(n["glb_data"]) for n in self.scene.values() if "glb_data" in n]
        return sizes[-1] if sizes else 0

    def _named(self, label: str) -> str:
        return next(u for u, c in self.controls.items() if c.get("label") == label and "value" in c)

    def _send(self, kind: str, **fields: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv()
            except ConnectionClosed:
                return
            assert isinstance(data, bytes)
            size = int.from_bytes(data[8:16], "little")
            inner = zstandard.ZstdDecompressor().decompress(data[16 : 16 + size])
            with self._changed:
                self.n_bytes += len(data)
                for message in msgspec.msgpack.decode(inner)["messages"]:
                    self._take(message)
                self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "LocalStorageSetItemMessage":
            self._storage[message["key"]] = message["value"]
        elif kind == "LocalStorageGetItemRequestMessage":
            value, uuid = self._storage.get(message["key"]), message["request_uuid"]
            answer = "LocalStorageGetItemResponseMessage"
            self._send(answer, value=value, error=None, request_uuid=uuid)
        elif kind == "GuiUpdateMessage" and message["uuid"] in self.controls:
            self.controls[message["uuid"]].update(message["updates"])
        elif kind == "GuiRemoveMessage":
            self.controls.pop(message["uuid"], None)
        elif kind == "NotificationShowMessage":
            self.notifications.append(message["props"]["body"])
        elif kind == "RemoveSceneNodeMessage":
            gone = message["name"]
            for name in [n for n in self.scene if n == gone or n.startswith(gone + "/")]:
                del self.scene[name]
        elif kind.startswith("Gui") and "props" in message and "uuid" in message:
            control = {"type": kind, **message["props"]}
            control["content"] = control.get("content", "")
            if "value" in message:
                control["value"] = message["value"]
            self.controls[message["uuid"]] = control
        elif "props" in message and "name" in message:
            self.scene[message["name"]] = {"type": kind, **message["props"]}
