"""Validation of names that become file names: scene ids, frame tokens, file names.

A log is data from elsewhere: a name such as ``../../elsewhere`` must not lead out of the folder
that it is written to or read from. Names are checked where a log is read, and again by
``inside`` where a path is made of them.

Scene ids are narrower than frame tokens. A scene id names a folder of the label store, part of a
key in an object store, an entry of a list separated by commas or by white space, and the same
store must have the same names on every machine. So it is ASCII without spaces: Unicode has
several spellings of one name (an accent apart or not) that file systems fold differently, and
object stores escape such keys each in their own way. An escaped name was considered and left out:
older code would show it as the id of another scene.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from datasets.errors import SceneError

MAX_BYTES = 200
"""Of a name, in UTF-8: file systems take 255, and endings are appended."""

MAX_PART_BYTES, MAX_PATH_BYTES = 255, 3000
"""Of a step of a path, and of a path below a folder: Linux takes 4,096 in all."""

_SCENE_ID = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_BYTES - 1}}}")


def fault_of_scene_id(scene_id: str) -> str:
    """Why an id cannot name a scene's folder; empty if it can."""
    if _SCENE_ID.fullmatch(scene_id):
        return ""
    return (
        f"scene id {shown(scene_id)} must be 1..{MAX_BYTES} ASCII letters, digits, '.', '_' or "
        "'-', and not begin with '.' or '-'; rename the scene in the log"
    )


def fault_of_token(token: str) -> str:
    """Why a frame's token cannot be a file's name; empty if it can."""
    if token in ("", ".", ".."):
        fault = "is no name"
    elif bad := next((c for c in token if c in "/\\" or not c.isprintable()), ""):
        fault = f"holds {shown(bad)}"
    elif len(token.encode()) > MAX_BYTES:
        fault = f"is longer than {MAX_BYTES} bytes"
    else:
        return ""
    return f"frame token {shown(token)} {fault}; a token must be one file name, without '/'"


def check_scene_id(scene_id: str) -> None:
    """Raise ``ValueError`` for an id that cannot be a folder name."""
    if fault := fault_of_scene_id(scene_id):
        raise ValueError(fault)


def check_scene(scene_id: str, *, where: str) -> None:
    """Raise ``SceneError`` for an id that cannot be a folder name.

    Args:
        where: file that states it.
    """
    if fault := fault_of_scene_id(scene_id):
        raise SceneError(where=where, rule=fault)


def check_token(token: str, *, where: str) -> None:
    """Raise ``SceneError`` for a frame token that cannot be a file name.

    Args:
        where: file that states it.
    """
    if fault := fault_of_token(token):
        raise SceneError(where=where, frame=shown(token), rule=fault)


def inside(folder: Path, *names: str) -> Path:
    """The path below a folder that the names make, each of them one step.

    Raises:
        SceneError: a name would leave its folder, or is no file name.
    """
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise SceneError(where=str(folder), rule=f"{shown(name)} is no name of a file in it")
    return folder.joinpath(*names)


def below(folder: Path, path: str, *, where: str, called: str = "the log's folder") -> Path:
    """The file that a table names by its path relative to a folder.

    Links inside the folder may lead anywhere: whoever set them up can read what they lead to.

    Args:
        where: the table; called: the folder; for the message.

    Raises:
        SceneError: the path is absolute, empty or longer than file systems take, or a step of it
            is ``..``.
    """
    relative = PurePosixPath(path)
    lengths = [len(part.encode("utf-8", "surrogatepass")) for part in (path, *relative.parts)]
    if lengths[0] > MAX_PATH_BYTES or max(lengths[1:], default=0) > MAX_PART_BYTES:
        rule = f"the path {shown(path)} is longer than file systems take"
        raise SceneError(where=where, rule=rule)
    if relative.is_absolute() or ".." in relative.parts or not relative.name or "\0" in path:
        rule = f"the path {shown(path)} must be relative and stay in {called}"
        raise SceneError(where=where, rule=rule)
    return folder / relative


def shown(name: str) -> str:
    """A name as a message can show it: in quotes, on one line, cut if long."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:76]}...'"


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """``; did you mean X?`` for the choice that is nearest, if one is near."""
    near = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean {near[0]}?" if near else ""
