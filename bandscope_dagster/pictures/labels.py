"""Untrusted text as labels in a picture."""

import unicodedata

from rich.cells import cell_len, set_cell_size

MARKS_PER_CELL = 4  # characters per column: some scripts combine a few, hostile text stacks many


def label(text: str, cells: int) -> str:
    """One line of at most ``cells`` columns (a Chinese character takes two), cut with an ellipsis.

    Invisible characters become spaces: control characters, which XML does not allow, marks that reverse the direction
    of text, and halves of surrogate pairs. Right-to-left text stays; the browser displays it correctly.
    """
    visible = "".join(
        character if character.isprintable() else " " for character in unicodedata.normalize("NFC", text)
    )
    line = " ".join(visible.split())[: MARKS_PER_CELL * cells]
    if cell_len(line) > cells:
        line = set_cell_size(line, cells - 1).rstrip() + "…"
    return line or "?"
