"""Places that fail, hang or die at a chosen write."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

from datasets.storage.backend import StorageBackend, Transaction

Fault = Literal["fails", "hangs", "dies", "is short"]


@dataclass(slots=True)
class Writes:
    """Counts writes; at number ``at`` the fault happens."""

    at: int
    fault: Fault = "fails"
    count: int = 0

    def next(self) -> bool:
        """Whether only half of it shall be written, before the failure."""
        self.count += 1
        if self.count - 1 != self.at:
            return False
        if self.fault == "hangs":
            time.sleep(3600)
        if self.fault == "dies":
            os._exit(9)
        if self.fault == "fails":
            raise OSError(28, "No space left on device")
        return True


class FaultyStore(WrapperStore[Any]):
    """A zarr store whose writes are counted."""

    def __init__(self, store: Any, writes: Writes) -> None:
        super().__init__(store)
        self.writes = writes

    async def set(self, key: str, value: Buffer, byte_range: ByteRequest | None = None) -> None:
        if self.writes.next():
            await self._store.set(key, value[: len(value) // 2])
            raise OSError(5, "Input/output error")
        await self._store.set(key, value)


@dataclass(slots=True)
class FaultyDraft:
    draft: Transaction
    writes: Writes

    def zarr(self, name: str) -> FaultyStore:
        return FaultyStore(self.draft.zarr(name), self.writes)

    def files(self) -> list[tuple[str, int]]:
        return self.draft.files()

    def commit(self, attributes: dict[str, Any], is_committed: Callable[[], bool]) -> None:
        if self.writes.next():
            raise OSError(5, "Input/output error")
        self.draft.commit(attributes, is_committed)

    def discard(self) -> None:
        self.draft.discard()


@dataclass
class FaultyPlace:
    """Another place with faults in the drafts it gives."""

    place: StorageBackend
    writes: Writes = field(default_factory=lambda: Writes(-1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place, name)

    def transaction(self, key: str) -> Transaction:
        return FaultyDraft(self.place.transaction(key), self.writes)
