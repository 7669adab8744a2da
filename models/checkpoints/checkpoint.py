"""Weights files: safetensors whose metadata names the preset and the provenance.

A file's metadata hold the format version, the preset and whatever the caller adds as strings (the
calibration table and the training provenance, as JSON; ``reference_parity`` = ``true`` for imported
weights, which want their inputs as published). Nothing is unpickled, so a file from
elsewhere can name a wrong network but cannot run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from datasets.errors import SetupError, UnwritableError
from datasets.files.bounded_files import parsing, regular_size
from datasets.files.replacing import replacing
from models.presets import OccupancyNet, Preset, build_network, preset

FORMAT = "effocc-autolabel-weights"
FORMAT_VERSION = "1"
CALIBRATION_KEY = "calibration"
EVIDENCE_KEY = "calibration_evidence"
"""What promises about the labels rest on."""
DOMAIN_KEY = "confidence_domain"
"""The logs that confidence was learned on."""
REFERENCE_PARITY_KEY = "reference_parity"
_IN_WORDS = {
    CALIBRATION_KEY: "calibration table",
    EVIDENCE_KEY: "calibration evidence",
    DOMAIN_KEY: "confidence domain",
}
Parsed = TypeVar("Parsed")
MAX_FILE_BYTES = 8 << 30
"""Of a weights file."""
MAX_HEADER_BYTES = 16 << 20
"""Of its header, which names its tensors and holds what is written beside them."""
_RESERVED = ("format", "format_version", "preset")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A network from a weights file.

    Attributes:
        module: in eval mode, on the asked device.
        preset: what it is.
        metadata: the caller's strings, such as the calibration table.
        weights_sha256: hex digest of the file's bytes.
    """

    module: OccupancyNet
    preset: Preset
    metadata: dict[str, str]
    weights_sha256: str


def save_checkpoint(
    path: Path, module: nn.Module, preset_name: str, metadata: Mapping[str, str]
) -> None:
    """Writes a weights file; an existing one is replaced in one step.

    Raises:
        SetupError: there is no such preset.
        ValueError: ``metadata`` uses a key of the format.
        UnwritableError: the file cannot be written.
    """
    preset(preset_name)
    if reserved := sorted(set(metadata) & set(_RESERVED)):
        raise ValueError(f"metadata keys belong to the format: {', '.join(reserved)}")
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "preset": preset_name}
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=header | dict(metadata))
            partial.chmod(0o644)  # safetensors writes for the owner only
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnwritableError(f"{path}: cannot be written: {reason}") from error


def load_checkpoint(
    path: Path, *, expect_preset: str | None = None, device: torch.device | str = "cpu"
) -> LoadedModel:
    """Builds the network a weights file names, and fills it.

    Raises:
        SetupError: the file is missing or not of this format and version, holds another preset
            than ``expect_preset``, or its tensors are not those of its preset.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    name = metadata.get("preset", "")
    if expect_preset is not None and name != expect_preset:
        raise SetupError(f"{path}: holds weights of preset {name!r}, not of {expect_preset!r}")
    try:
        spec = preset(name)
    except SetupError as error:
        raise SetupError(f"{path}: {error}") from error
    if metadata.get(REFERENCE_PARITY_KEY) == "true":
        spec = spec.with_reference_parity()
    module = build_network(spec.network)
    if problem := _mismatch(module, tensors):
        raise SetupError(f"{path}: does not fit preset {name!r}: {problem}")
    module.load_state_dict(tensors)
    return LoadedModel(
        module=module.to(device).eval(),
        preset=spec,
        metadata={k: v for k, v in metadata.items() if k not in _RESERVED},
        weights_sha256=file_sha256(path),
    )


def initialise(network: nn.Module, path: Path, parts: Sequence[str] = ()) -> str:
    """Fill a network from a weights file of whatever preset, for fine-tuning, where names agree.

    Args:
        parts: only these of the network, such as ``img_backbone``; none named: all.

    Returns:
        What was taken and what was not, in one line.

    Raises:
        SetupError: the file cannot be read, a tensor has another shape, or no name agrees.
    """
    _, tensors = _read(Path(path))
    own = network.state_dict()
    if unknown := set(parts) - {name for name, _ in network.named_children()}:
        have = ", ".join(name for name, _ in network.named_children())
        raise SetupError(f"the network has no part {sorted(unknown)[0]!r}; it has {have}")
    shared = {k for k in own.keys() & tensors.keys() if not parts or k.split(".")[0] in parts}
    if not shared:
        raise SetupError(f"{path}: none of its tensors belongs to this network")
    if other := sorted(k for k in shared if own[k].shape != tensors[k].shape):
        first = other[0]
        raise SetupError(
            f"{path}: {len(other)} tensors have other shapes than the network's, the first is "
            f"{first}: {tuple(tensors[first].shape)}, not {tuple(own[first].shape)}"
        )
    network.load_state_dict({k: tensors[k] for k in shared}, strict=False)
    said = [f"{len(shared)} of the network's {len(own)} tensors taken"]
    for label, names in (
        ("left as they were", own.keys() - shared),
        ("not taken from the file", tensors.keys() - shared),
    ):
        if names:
            said.append(f"{label}: {', '.join(sorted({k.rpartition('.')[0] for k in names}))}")
    return "; ".join(said)


def metadata_json(
    metadata: Mapping[str, str], key: str, parse: Callable[[Any], Parsed], path: Path
) -> Parsed:
    """One of the documents that are written beside the weights.

    Args:
        parse: of what the JSON holds; raises nearly anything where that is damaged.
        path: of the weights file, for the message.

    Raises:
        SetupError: it is damaged.
    """
    try:
        with parsing():
            return parse(json.loads(metadata[key]))
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: damaged {_IN_WORDS.get(key, key)}: {error}") from error


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a weights file.

    Raises:
        SetupError: it is missing, or not of this format and version.
    """
    metadata, tensors = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise SetupError(f"{path}: a safetensors file, but not written by this toolkit")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise SetupError(
            f"{path}: weights format version {version}, this code reads {FORMAT_VERSION}"
        )
    return metadata, tensors


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of any safetensors file. Its tensors are mapped, not read.

    Raises:
        SetupError: it is missing, damaged or too large.
    """
    if not path.is_file():
        raise SetupError(f"{path}: no such weights file")
    try:
        regular_size(path, MAX_FILE_BYTES, "MAX_FILE_BYTES")
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER_BYTES:
            raise ValueError(
                f"its header has {header:,} bytes, more than the {MAX_HEADER_BYTES:,} of "
                "MAX_HEADER_BYTES"
            )
        with parsing(), safe_open(path, framework="pt") as f:
            return dict(f.metadata() or {}), {
                key: f.get_tensor(key)
                for key in f.keys()  # noqa: SIM118
            }
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: not a readable safetensors file ({error})") from error


def _mismatch(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
    """Why the tensors do not fit, in one line; empty if they do."""
    want = module.state_dict()
    shared = want.keys() & tensors.keys()
    problems = []
    for problem, keys in (
        ("missing", want.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - want.keys()),
        ("other shape", {k for k in shared if want[k].shape != tensors[k].shape}),
    ):
        if keys:
            first = sorted(keys)
            rest_text = f" and {len(first) - 3} more" if len(first) > 3 else ""
            problems.append(f"{problem}: {', '.join(first[:3])}{rest_text}")
    return "; ".join(problems)
