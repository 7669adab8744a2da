"""Asks for a note."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from open3d.visualization import gui

from viz.render.theme import EDGE_PX, GAP_PX
from viz.window.widgets import button, row, text


def note_dialog(note: str, done: Callable[[str, bool], None]) -> Any:
    """A dialog with one line of text.

    Args:
        done: called with the note, and whether it is to be written now, without a verdict.
    """
    dialog = gui.Dialog("Note")
    field = gui.TextEdit()
    field.text_value, field.placeholder_text = note, "click here and type"
    column = gui.Vert(GAP_PX, gui.Margins(2 * EDGE_PX, EDGE_PX, 2 * EDGE_PX, EDGE_PX))
    column.add_child(text("Note on this frame"))
    column.add_child(field)
    column.add_child(
        row(
            button("with the next verdict", lambda: done(field.text_value.strip(), False)),
            button("write it now", lambda: done(field.text_value.strip(), True)),
            button("cancel  Esc", lambda: done(note, False)),
        )
    )
    dialog.add_child(column)
    return dialog
