"""The errors a caller can act on."""

from datasets.files.printable import printable


class AutolabelError(Exception):
    """Base of every error that is a user's or the data's fault rather than a bug.

    Its text is one line without control characters or credentials, whatever it quotes.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class SetupError(AutolabelError):
    """The job cannot start: a wrong path, option, split, store or weights file (exit code 2)."""


class UnwritableError(SetupError, OSError):
    """A place takes nothing more: its disk or quota is full, or it may not be written (exit code
    2). No scene's fault: whoever makes room and starts the same command again goes on."""


class UnreadableError(SetupError):
    """Something is there and cannot be read: a damaged document, a refused request (exit code 2).
    It counts neither as present nor as absent, so nothing is concluded from it or done to it."""


class SceneError(AutolabelError):
    """One scene's data is bad: it is quarantined and reported, other scenes go on (exit code 1)."""

    def __init__(self, *, where: str, rule: str, frame: str = "") -> None:
        self.where, self.rule, self.frame = where, rule, frame
        frame_text = f" (frame {frame})" if frame else ""
        super().__init__(f"{where}{frame_text}: {rule}")

    def __reduce__(self) -> tuple[object, ...]:
        return _scene_error, (self.where, self.rule, self.frame)


def _scene_error(where: str, rule: str, frame: str) -> SceneError:
    return SceneError(where=where, rule=rule, frame=frame)
