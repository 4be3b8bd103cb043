"""Writes the page of one song: its facts, its sound, and what plays it, in one file that asks for nothing else."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.pages.shelf import Shelf, Summary, as_json
from bandscope_dagster.pages.song_view import title_of, view
from bandscope_dagster.pages.sound import CHUNK_S, SongSound
from bandscope_dagster.pages.text import visible
from bandscope_dagster.pages.timeline_view import UNMAPPED
from bandscope_dagster.pages.waveform import Waveform
from bandscope_dagster.pages.web_files import SONG_PAGE, render, version
from bandscope_dagster.songs.facts import SongFacts, read_facts
from bandscope_dagster.songs.presence import PresentFrom
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import table_key

CODE_VERSION: Final = "1"
"""Raised by hand whenever the same tables give another page; its templates, styles and scripts count by themselves."""

SOUND_MARK: Final = "<!--sound-->"  # where the template wants the sound; text from strangers has no "<"
MOST_LISTED: Final = 40  # instruments in a summary
LISTED_CELLS: Final = 40  # of the name of each: in the vocabulary they have at most 20


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """The page of a song, as it lies in its place."""

    song_id: str
    status: str
    key: str
    uri: str
    digest: str
    bytes: int  # 0 where it was kept
    kept: bool  # it was there already, made from the same


def source_digest(store: ObjectStore, song_id: str, present_from: PresentFrom) -> str:
    """Over all that the song's page is made from: the files of its tables, the settings, and our own code."""
    files = [
        found and found.fingerprint for found in (store.head(table_key(table, song_id)) for table in SOURCES)
    ]
    scores = sorted((name or "", score) for name, score in present_from.items())
    parts = [CODE_VERSION, version(SONG_PAGE), song_id, files, scores]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_page(
    store: ObjectStore, shelf: Shelf, song_id: str, present_from: PresentFrom, *, keep: bool = False
) -> WrittenPage:
    """Write the song's page in place of the one that is there, in one step. Memory does not grow with the song.

    With ``keep``, one that was made from the same is left as it is.

    Raises:
        CannotAnalyze: ``songs`` has nothing of it.
    """
    # Before the tables are read: one that is replaced meanwhile makes the page out of date, and never seem fresh.
    digest = source_digest(store, song_id, present_from)
    key = shelf.key(song_id)
    written = WrittenPage(song_id, "", key, shelf.store.uri(key), digest, 0, kept=True)
    if keep and (found := shelf.summary(song_id)) is not None and found.digest == digest:
        return replace(written, status=found.status)
    facts = read_facts(store, song_id, present_from)
    if facts is None:
        raise CannotAnalyze(f"{song_id} is in no table: materialize songs for it first (`bandscope run`)")
    with shelf.store.create(key) as page:
        for part in _parts(store, facts, digest):
            page.write(part.encode())
        size = page.commit()
    return replace(written, status=facts.status, bytes=size, kept=False)


def _parts(store: ObjectStore, facts: SongFacts, digest: str) -> Iterator[str]:
    """The page's text from top to bottom."""
    html = render(SONG_PAGE, view(facts) | {"summary": as_json(_summary(facts, digest))})
    before, _, after = html.partition(SOUND_MARK)
    yield before
    if facts.sources:
        yield from _sound(store, facts)
    yield after


def _summary(facts: SongFacts, digest: str) -> Summary:
    song = facts.song
    seconds: dict[tuple[str, str], float] = {}
    for instrument in facts.instruments:
        key = (visible(instrument.name, LISTED_CELLS), instrument.family or UNMAPPED)
        seconds[key] = max(instrument.seconds, seconds.get(key, 0.0))
    most_first = sorted(seconds, key=lambda name: (-seconds[name], name))
    return Summary(
        digest=digest,
        song_id=song["song_id"],
        title=title_of(facts),
        artist=visible(song["artist"]) if song["artist"] else "",
        owner=visible(song["owner"]) if song["owner"] else "",
        filename=visible(song["filename"]) if song["filename"] else "",
        status=facts.status,
        seconds=round(facts.seconds, 1),
        loudness_lufs=None if song["loudness_lufs"] is None else round(song["loudness_lufs"], 1),
        instruments=most_first[:MOST_LISTED],
    )


def _sound(store: ObjectStore, facts: SongFacts) -> Iterator[str]:
    """One element per chunk, of a line per source, and one that says what they hold."""
    # What passes full scale would be cut by a sound card: the whole song is lowered, all sources alike.
    scale = 1.0 if facts.peak <= 1.0 else 1.0 / facts.peak
    sound = SongSound(store, facts.song["song_id"], facts.sources, facts.frames, scale)
    for number, chunk in enumerate(sound.chunks()):
        lines = "\n".join(b64encode(packets).decode() for packets in chunk)
        yield f'<script type="text/plain" id="chunk-{number}">\n{lines}\n</script>\n'
    told = {
        "sources": facts.sources,
        "seconds": facts.seconds,
        "chunk_s": CHUNK_S,
        "delay": sound.delay,
        "scale": scale,
        "waveforms": _outlines(sound.waveforms),
    }
    yield f'<script type="application/json" id="sound">{_in_html(told)}</script>\n'


def _outlines(waveforms: Mapping[str, Waveform]) -> list[dict[str, str]]:
    """Each source's levels in one byte a column, 255 = the loudest peak of all."""
    loudest = max(float(waveform.peak.max(initial=0.0)) for waveform in waveforms.values()) or 1.0

    def column_bytes(levels: NDArray[np.float64]) -> str:
        return b64encode(np.rint(levels / loudest * 255).astype(np.uint8).tobytes()).decode()

    return [{"peak": column_bytes(w.peak), "rms": column_bytes(w.rms)} for w in waveforms.values()]


def _in_html(value: Any) -> str:
    """JSON that cannot end the element in which it stands."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
