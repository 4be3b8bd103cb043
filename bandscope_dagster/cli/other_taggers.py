"""The note of ``bandscope run`` and ``status`` on songs whose tags are those of another tagger than the chosen one."""

from rich.console import Console

from bandscope_dagster.songs.query import QueryError, query
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import TAG_TABLES


def print_other_taggers(store: ObjectStore, console: Console, tagger: str) -> None:
    """Print how many songs in ``song_catalog`` were not tagged by ``tagger``, and the command that tags them anew."""
    try:
        tagged = query(
            store,
            "SELECT tagger, COUNT(*) AS songs FROM song_catalog WHERE tagger IS NOT NULL"
            " GROUP BY tagger ORDER BY tagger",
        )
    except QueryError:
        return  # the catalog is damaged; the next refresh makes it again
    if others := [f"{songs} by {name}" for name, songs in tagged.iter_rows() if name != tagger]:
        tables = ",".join(table.name for table in TAG_TABLES)
        console.print(
            f"Songs with tags of another tagger than {tagger}, which is chosen: {', '.join(others)}. "
            f"`bandscope run --recompute --select {tables}` tags them anew.",
            highlight=False,
            soft_wrap=True,
        )
