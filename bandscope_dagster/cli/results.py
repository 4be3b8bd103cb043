"""``bandscope results``: prints the result of each song, also as soon as it is stored."""

import logging

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line, print_note, print_raw
from bandscope_dagster.orchestration.song_results import START, SongResult, end_of_results, follow, stored
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

SHOWN_INSTRUMENTS = 6


def print_results(
    settings: Settings,
    store: ObjectStore,
    console: Console,
    *,
    after: str | None,
    from_start: bool,
    following: bool,
    as_json: bool,
) -> None:
    """Print one line per result. With ``following`` it does not end by itself."""
    logging.basicConfig(format="bandscope: %(message)s", level=logging.WARNING)
    after = after or (START if from_start else None)
    if following and after is None:
        after = end_of_results()
        print_note(f"The next results are printed; their cursor is {after}.")
    read = follow if following else stored
    for result in read(after, settings=settings, store=store):
        if as_json:
            print_raw(result.to_json())
        else:
            console.print(escape(line_of(result)), highlight=False, soft_wrap=True)


def line_of(result: SongResult) -> str:
    """The cursor, the status, the song and its file, and what is heard in it, or the reason."""
    names = list(dict.fromkeys(heard.instrument for heard in result.instruments))
    heard = ", ".join(names[:SHOWN_INSTRUMENTS]) + (", …" if len(names) > SHOWN_INSTRUMENTS else "")
    said = result.error or heard or "no instrument"
    parts = (result.cursor, f"{result.status:8}", result.song_id, result.filename or "-", said)
    return "  ".join(one_line(part) for part in parts)
