"""Text from strangers, made fit to stand in a picture."""

import unicodedata

from rich.cells import cell_len, set_cell_size

MARKS_PER_CELL = (
    4  # characters that may share a cell, as accents do: some scripts need them, stacks of them do not
)


def label(text: str, cells: int) -> str:
    """One line of at most ``cells`` columns (a Chinese character takes two), cut with an ellipsis.

    What is no visible character becomes a space: control characters, which XML does not allow, the marks that
    reverse the direction of writing, halves of surrogate pairs. Right-to-left text stays, its reader turns it.
    """
    visible = "".join(
        character if character.isprintable() else " " for character in unicodedata.normalize("NFC", text)
    )
    line = " ".join(visible.split())[: MARKS_PER_CELL * cells]
    if cell_len(line) > cells:
        line = set_cell_size(line, cells - 1).rstrip() + "…"
    return line or "?"
