"""Ways to spoil a file of a log, a store or a checkpoint."""

from __future__ import annotations

import copy
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets.files.json_files import json_text
from datasets.files.seals import DIGEST, sealed
from datasets.sources.waymo.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc

SPARSE_BYTES = 3 << 30
_DEEP = 100_000
_MARK = "@@replaced@@"
_LITERALS = (
    "1" + "0" * 400,
    "1" + "0" * 6000,
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    str(10**30),
    str(2**63),
    str(2**31),
    "-1",
    "0",
    "1e308",
    "0.5",
    "true",
    "null",
    '""',
    "[]",
    "{}",
    '"\\ud800"',
    '"a\\u0000b"',
    '"../../../outside"',
    '"/etc/hostname"',
    '"' + "x" * 70_000 + '"',
    "[" * _DEEP + "]" * _DEEP,
    '{"a":' * _DEEP + "1" + "}" * _DEEP,
    "[" + "0," * 50_000 + "0]",
    '"\\u001b[2J\\n"',
)
_SPANS = (b"\0", b"\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"1e999", b"-1", b"9" * 400)


def mutate(path: Path, rng: random.Random) -> str:
    """Spoil a file, in one way that suits its kind. Returns what was done."""
    suffix, raw = path.suffix, path.read_bytes()
    path.unlink()  # it is a hard link
    ways: list[Callable[[Path, bytes, random.Random], str]] = [_bytes]
    if suffix in (".json", ".report") or path.name == "zarr.json":
        ways += [_json] * 5
    elif suffix in (".npz", ".pth", ".pt") and raw[:2] == b"PK":
        ways += [_zip] * 3
    elif suffix == ".tfrecord":
        ways += [_record] * 5
    elif suffix == ".safetensors":
        ways += [_safetensors] * 3
    if rng.random() < 0.06:
        return _kind(path, raw, rng)
    return rng.choice(ways)(path, raw, rng)


def _kind(path: Path, raw: bytes, rng: random.Random) -> str:
    kind = rng.choice(("fifo", "folder", "link", "loop", "sparse", "sparse tail", "empty", "none"))
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/hostname")
        case "loop":
            path.symlink_to(path.name)
        case "sparse" | "sparse tail":
            path.write_bytes(b"" if kind == "sparse" else raw)
            os.truncate(path, SPARSE_BYTES)
        case "empty":
            path.touch()
    return kind


def _bytes(path: Path, raw: bytes, rng: random.Random) -> str:
    data, done = spoiled(raw, rng)
    path.write_bytes(data)
    return done


def spoiled(raw: bytes, rng: random.Random) -> tuple[bytes, str]:
    if not raw:
        return b"\0", "a byte"
    first = rng.randrange(len(raw))
    if rng.random() < 0.5:  # headers decide
        first = rng.randrange(min(len(raw), 200))
    end = min(len(raw), first + 1 + int(rng.paretovariate(0.5)))
    data = bytearray(raw)
    match rng.choice(("bits", "cut", "double", "truncate", "span", "zeros", "swap")):
        case "bits":
            flips = [first, *(rng.randrange(len(raw)) for _ in range(rng.choice((0, 0, 3, 20))))]
            for i in flips:
                data[i] ^= 1 << rng.randrange(8)
            return bytes(data), f"bits of bytes {flips[:4]}"
        case "cut":
            return raw[:first] + raw[end:], f"bytes {first}..{end} cut"
        case "double":
            times = rng.choice((2, 2, 50))
            span = raw[first:end][:100_000] * times
            return raw[:first] + span + raw[end:], f"bytes {first}..{end} again"
        case "truncate":
            return raw[:first], f"truncated at {first}"
        case "span":
            span = rng.choice(_SPANS)
            data[first : first + len(span)] = span
            return bytes(data), f"{span[:9]!r} at {first}"
        case "zeros":
            data[first:end] = bytes(end - first)
            return bytes(data), f"zeros at {first}..{end}"
        case _:
            other = rng.randrange(len(raw))
            data[first], data[other] = data[other], data[first]
            return bytes(data), f"bytes {first} and {other} swapped"


def _json(path: Path, raw: bytes, rng: random.Random) -> str:
    text, change = spoiled_json(json.loads(raw), rng)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return change


def spoiled_json(document: Any, rng: random.Random) -> tuple[str, str]:
    """One value or key of a document made into something else; a digest made to fit it again."""
    places = list(_places(document))
    if not places:
        return rng.choice(_LITERALS), "all of it"
    name, holder, key = rng.choice(places)
    literal = rng.choice(_LITERALS)
    match rng.choice(("value", "value", "value", "drop", "rename", "other")):
        case "value":
            holder[key], change = _MARK, f"{name} = {literal[:24]}"
        case "drop":
            del holder[key]
            change = f"{name} dropped"
        case "rename" if isinstance(holder, dict):
            new = rng.choice(("", "x", "\ud800", "a\0b", "../../y", "1" * 300))
            holder[new] = holder.pop(key)
            change = f"{name} renamed {new[:9]!a}"
        case _:
            other = rng.choice(places)
            holder[key] = copy.deepcopy(other[1][other[2]])
            change = f"{name} = that of {other[0]}"
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if isinstance(attributes, dict) and DIGEST in attributes and rng.random() < 0.7:
        value = _value(literal)
        if value is not None:
            document = _with(document, value)
            document["attributes"] = sealed(document["attributes"])
            return json_text(document), change + ", sealed"
    return json_text(document).replace(json_text(_MARK), literal), change


def _value(literal: str) -> Any:
    try:
        value = json.loads(literal)
        return None if value != value or value in (float("inf"), float("-inf")) else value
    except (ValueError, RecursionError):
        return None


def _with(document: Any, value: Any) -> Any:
    if isinstance(document, dict):
        return {key: _with(inner, value) for key, inner in document.items()}
    if isinstance(document, list):
        return [_with(inner, value) for inner in document]
    return value if document == _MARK else document


def _places(value: Any, name: str = "") -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield f"{name}/{key}", value, key
            yield from _places(value[key], f"{name}/{key}")


def _zip(path: Path, raw: bytes, rng: random.Random) -> str:
    """One member spoiled, or compressed, or full of zeros; the others as they are."""
    source = path.with_name("source.zip")
    source.write_bytes(raw)
    spoiling = rng.choice(("bytes", "bytes", "bomb", "bytearray", "packed"))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        members = old.infolist()
        chosen = rng.choice([m for m in members if m.filename.endswith(".pkl")] or members)
        if rng.random() < 0.4:
            chosen = rng.choice(members)
        done = ""
        for member in members:
            data, kind = old.read(member), member.compress_type
            if member is chosen:
                if spoiling == "bomb":
                    data, kind = data + bytes(300 << 20), zipfile.ZIP_DEFLATED
                elif spoiling == "packed":
                    kind = zipfile.ZIP_DEFLATED
                elif spoiling == "bytearray" and member.filename.endswith(".pkl"):
                    size = struct.pack("<I", (2 << 30) - 1)
                    data = b"\x80\x02c__builtin__\nbytearray\nJ" + size + b"\x85R."
                else:
                    data, done = spoiled(data, rng)
            new.writestr(member.filename, data, kind)
    source.unlink()
    return f"{chosen.filename}: {spoiling} {done}"


def _safetensors(path: Path, raw: bytes, rng: random.Random) -> str:
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    if rng.random() < 0.5 and (notes := header.get("__metadata__")):
        name = rng.choice(sorted(notes))
        try:
            notes[name], change = spoiled_json(json.loads(notes[name]), rng)
        except ValueError:
            notes[name], change = rng.choice(_LITERALS), "replaced"
        text, change = json_text(header), f"metadata {name}: {change}"
    else:
        text, change = spoiled_json(header, rng)
    packed = text.encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + raw[8 + size :])
    return change


def _record(path: Path, raw: bytes, rng: random.Random) -> str:
    """The data of one record spoiled, the checksums right again; or a length of gigabytes."""
    records, offset = [], 0
    while offset < len(raw):
        (length,) = struct.unpack("<Q", raw[offset : offset + 8])
        records.append(raw[offset + HEADER_BYTES : offset + HEADER_BYTES + length])
        offset += HEADER_BYTES + length + FOOTER_BYTES
    i = rng.randrange(len(records))
    if rng.random() < 0.05:
        length = struct.pack("<Q", SPARSE_BYTES - 16)
        path.write_bytes(length + struct.pack("<I", masked_crc(length)))
        os.truncate(path, SPARSE_BYTES)
        return "a record of gigabytes"
    records[i], change = spoiled(records[i], rng)
    out = []
    for data in records:
        length = struct.pack("<Q", len(data))
        out += [length, struct.pack("<I", masked_crc(length)), data]
        out.append(struct.pack("<I", masked_crc(data)))
    path.write_bytes(b"".join(out))
    return f"record {i}: {change}"
