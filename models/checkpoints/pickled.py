"""Files of PyTorch's pickles, measured before they are loaded, and read by its restricted
unpickler: nothing in them can run code or take memory that the file does not hold.

What is refused first: files larger than ``MAX_FILE_BYTES``, compressed members (PyTorch stores them
as they are), more than ``MAX_OPCODES`` of pickle, and ``bytearray`` and types of tensors, of which
a few bytes make gigabytes. Tensors that say more values than the file holds are refused afterwards:
whoever copies one takes memory for all of them. The members of a zip file are mapped, so a tensor
that nobody looks at takes no memory; files of before PyTorch 1.6 are read whole and may hold
``MAX_OLD_BYTES``.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import torch

from datasets.files.bounded_files import check_zip, parsing, regular_size

MAX_FILE_BYTES = 8 << 30
"""Of a checkpoint or a training state: twice the largest published, with its optimiser."""
MAX_OLD_BYTES = 512 << 20
"""Of one that PyTorch before 1.6 wrote; load and save it again with a newer one if it is larger."""
MAX_PICKLE_BYTES = 16 << 20
"""Of the pickles in a file, which name its tensors."""
MAX_OPCODES = 500_000
"""Of a pickle: a state dict takes about forty for each tensor."""
_OLD_PICKLES = 5
_TAKING_MEMORY = re.compile(r"(builtins|__builtin__) bytearray|torch[.\w]* \w*Tensor")
_TIMES = 2
"""Tied weights are two tensors of one storage."""

Harmless = Callable[..., object] | tuple[Callable[..., object], str]


def load_pickled(path: Path, harmless: Sequence[Harmless] = ()) -> object:
    """What a file that ``torch.save`` wrote holds, on the CPU.

    Args:
        harmless: types that the file may name besides those that PyTorch allows.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, no such file, too large, or holds something else.
    """
    size = regular_size(path, MAX_FILE_BYTES, "MAX_FILE_BYTES")
    check_zip(path)
    with parsing(), warnings.catch_warnings(), torch.serialization.safe_globals(list(harmless)):
        warnings.simplefilter("ignore")
        if zipped := zipfile.is_zipfile(path):
            _check_members(path)
        else:
            _check_old(path, size)
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    if (said := _tensor_bytes(content)) > _TIMES * size:
        raise ValueError(f"its tensors say {said:,} bytes, and the file holds {size:,}")
    return content


def _tensor_bytes(content: object) -> int:
    """Bytes of all tensors if each were copied."""
    total, pending, visited = 0, [content], set[int]()
    while pending:
        if id(item := pending.pop()) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, torch.Tensor):
            total += item.numel() * item.element_size()
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list | tuple | set):
            pending += item
    return total


def _check_members(path: Path) -> None:
    with zipfile.ZipFile(path) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed, as PyTorch writes none")
            if not member.filename.endswith(".pkl"):
                continue
            if member.file_size > MAX_PICKLE_BYTES:
                raise ValueError(
                    f"{member.filename} has {member.file_size:,} bytes, more than the "
                    f"{MAX_PICKLE_BYTES:,} of MAX_PICKLE_BYTES"
                )
            _check_pickle(io.BytesIO(members.read(member)))


def _check_old(path: Path, size: int) -> None:
    if size > MAX_OLD_BYTES:
        raise ValueError(
            f"no zip file, and {size:,} bytes are more than the {MAX_OLD_BYTES:,} of MAX_OLD_BYTES"
        )
    with path.open("rb") as file:
        bounded = _Bounded(file, MAX_PICKLE_BYTES)
        for _ in range(_OLD_PICKLES):
            _check_pickle(bounded)


def _check_pickle(file: IO[bytes] | _Bounded) -> None:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
        if number >= MAX_OPCODES:
            raise ValueError(f"its pickle has more than the {MAX_OPCODES:,} opcodes of MAX_OPCODES")
        if opcode.name == "GLOBAL" and _TAKING_MEMORY.fullmatch(str(argument)):
            raise ValueError(f"it makes a {str(argument).split()[1]}, as no state dict does")


class _Bounded:
    """The first bytes of a file, for ``pickletools``."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit = file, limit

    def read(self, count: int = -1) -> bytes:
        left = self._limit - self._file.tell()
        if count > left:
            raise ValueError(f"its pickles exceed the {self._limit:,} bytes of MAX_PICKLE_BYTES")
        return self._file.read(count if count >= 0 else left)

    def readline(self) -> bytes:
        return self._file.readline(self._limit - self._file.tell())

    def tell(self) -> int:
        return self._file.tell()
