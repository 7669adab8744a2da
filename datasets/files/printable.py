"""Untrusted text for output: control characters escaped, credentials hidden.

Licences, class names, file names and messages that quote a file are data: an escape sequence in
them would move the cursor, set the window's title or hide a line, and a newline would pass for a
line of ours. Two edges see to it: ``AutolabelError`` gives its message on one line, and
``exit_code`` puts a ``Guarded`` stream before the terminal, which covers whatever else is printed.
Newlines are ours to that stream, so a print of plain data goes through ``printable``.

Credentials belong into the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, a
profile, a role). A URL that carries them is accepted, and shown and stored without them.
"""

from __future__ import annotations

import re
from typing import Any, TextIO

HIDDEN = "***"
_CONTROL = re.compile(
    "["
    "\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f"  # C0 but for the tab, DEL, C1
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"  # direction of writing
    "\\u2028\\u2029"  # ends of lines and paragraphs
    "\\ud800-\\udfff"  # halves of characters, which no terminal takes
    "]"
)
_LINES = re.compile(_CONTROL.pattern.replace("\\x0a-", "\\x0b-"))
_MOVES = re.compile(r"(\n|\x1b\[A)*")
"""How progress bars get to their line."""

# Repetitions are bounded: the time grows with the text's length, whatever it holds.
_USER = re.compile(
    r"\b(?P<scheme>(?:s3a?|gs|azure?|adl|abfss?):/{1,2})"
    r"[^/?#\s'\"@:]{0,200}:[^?#\s'\"@]{0,300}@"  # a '/' in it, too
    r"|\b(?P<any>[a-z][a-z0-9+.-]{0,20}:/{1,2})[^/?#\s'\"@]{1,500}@",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"(?P<name>[?&;](?:x-(?:amz|goog)-[\w-]{1,40}|sig|sv|signature|awsaccesskeyid|googleaccessid"
    r"|[\w.-]{0,40}(?:key|secret|token|passw(?:or)?d|credentials?))=)[^&;#\s'\"]+",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"(?P<name>(?:access[_-]?key(?:[_-]?id)?|secret[_-]?key|account[_-]?key|"
    r"session[_-]?token|sas[_-]?token|client[_-]?secret)['\"]?\s{0,2}[=:]\s{0,2}['\"]?)"
    r"[^\s'\",;&)}\]]+",
    re.IGNORECASE,
)


def printable(text: object, *, lines: bool = False) -> str:
    """Text whose control characters are escaped (``\\x1b``) and whose credentials are hidden.

    Args:
        lines: newlines stay.
    """
    pattern = _LINES if lines else _CONTROL
    return pattern.sub(lambda c: c[0].encode("unicode_escape").decode(), redacted(str(text)))


def redacted(text: str) -> str:
    """Text whose URLs and options are without credentials: ``***`` stands for a user with their
    password, and for the value of a signature, a key, a secret or a token."""
    if ":/" in text and "@" in text:
        text = _USER.sub(lambda m: f"{m['scheme'] or m['any']}{HIDDEN}@", text)
    if "=" in text or ":" in text:
        text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
        text = _OPTION.sub(rf"\g<name>{HIDDEN}", text)
    return text


class Guarded:
    """A text stream that writes what is printable; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As a stream's. A leading carriage return, as of a progress bar, stays."""
        if _MOVES.fullmatch(text):
            self._stream.write(text)
        else:
            start = "\r" if text.startswith("\r") else ""
            self._stream.write(start + printable(text[len(start) :], lines=True))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)
