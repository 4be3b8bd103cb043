"""Write the page of one song, with its facts, its sound and its player, into one file that loads nothing else."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.pages.page_folder import PageFolder, Summary
from bandscope_dagster.pages.song_view import reason_of, song_view, title_of
from bandscope_dagster.pages.sound import CHUNK_S, SongSound
from bandscope_dagster.pages.text import visible
from bandscope_dagster.pages.timeline_view import UNMAPPED
from bandscope_dagster.pages.waveform import Waveform
from bandscope_dagster.pages.web_files import SONG_PAGE, render, version
from bandscope_dagster.songs.facts import SongFacts, read_facts
from bandscope_dagster.songs.presence import PresentFrom, as_setting
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import table_key

CODE_VERSION: Final = "2"
"""Raise it whenever this code makes another page from the same tables. Web files are compared by their content."""

SOUND_MARK: Final = "<!--sound-->"  # the place of the sound in the template; text from uploads has no "<"
MOST_LISTED: Final = 40  # instruments in a summary
LISTED_CELLS: Final = 40  # columns of each instrument's name; names in the vocabulary have at most 20


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """The page of a song in its folder."""

    song_id: str
    status: str
    key: str
    uri: str
    digest: str
    bytes: int  # 0 if it was kept
    kept: bool  # True if a page from the same tables was there already


def source_digest(store: ObjectStore, song_id: str, present_from: PresentFrom) -> str:
    """The digest of everything that the page is made from: the files of its tables, the settings, and the code."""
    files = [
        found and found.fingerprint for found in (store.head(table_key(table, song_id)) for table in SOURCES)
    ]
    parts = [CODE_VERSION, version(SONG_PAGE), song_id, files, as_setting(present_from)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_page(
    store: ObjectStore, pages: PageFolder, song_id: str, present_from: PresentFrom, *, keep: bool = False
) -> WrittenPage:
    """Write the song's page; it replaces an old page in one step. Memory does not grow with the song.

    With ``keep``, a page that was made from the same tables, settings and code is left as it is.

    Raises:
        CannotAnalyze: the song is in no table.
    """
    # Taken before the tables are read: a table that is replaced meanwhile then makes the page outdated.
    digest = source_digest(store, song_id, present_from)
    key = pages.key(song_id)
    written = WrittenPage(song_id, "", key, pages.store.uri(key), digest, 0, kept=True)
    if keep and (found := pages.summary(song_id)) is not None and found.digest == digest:
        return replace(written, status=found.status)
    facts = read_facts(store, song_id, present_from)
    if facts is None:
        raise CannotAnalyze(f"{song_id} is in no table; materialize songs for it first (`bandscope run`)")
    with pages.store.create(key) as page:
        for part in _parts(store, facts, digest):
            page.write(part.encode())
        size = page.commit()
    return replace(written, status=facts.status.value, bytes=size, kept=False)


def _parts(store: ObjectStore, facts: SongFacts, digest: str) -> Iterator[str]:
    """The page's text from top to bottom."""
    html = render(SONG_PAGE, song_view(facts) | {"summary": asdict(_summary(facts, digest))})
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
    longest_first = sorted(seconds, key=lambda name: (-seconds[name], name))
    return Summary(
        digest=digest,
        song_id=song["song_id"],
        title=title_of(facts),
        artist=visible(song["artist"]) if song["artist"] else "",
        owner=visible(song["owner"]) if song["owner"] else "",
        filename=visible(song["filename"]) if song["filename"] else "",
        status=facts.status.value,
        seconds=round(facts.seconds, 1),
        loudness_lufs=None if song["loudness_lufs"] is None else round(song["loudness_lufs"], 1),
        instruments=longest_first[:MOST_LISTED],
        reason=reason_of(facts),
    )


def _sound(store: ObjectStore, facts: SongFacts) -> Iterator[str]:
    """One element per chunk, with a line for each source, and one element that describes them."""
    # A sound card clips everything beyond full scale, so such a song is lowered: all sources by one factor.
    scale = 1.0 if facts.peak <= 1.0 else 1.0 / facts.peak
    sound = SongSound(store, facts.song["song_id"], facts.sources, facts.frames, scale)
    for number, chunk in enumerate(sound.chunks()):
        lines = "\n".join(b64encode(packets).decode() for packets in chunk)
        yield f'<script type="text/plain" id="chunk-{number}">\n{lines}\n</script>\n'
    description = {
        "sources": facts.sources,
        "seconds": facts.seconds,
        "chunk_s": CHUNK_S,
        "delay": sound.delay,
        "scale": scale,
        "waveforms": _waveform_bytes(sound.waveforms),
    }
    yield f'<script type="application/json" id="sound">{_in_html(description)}</script>\n'


def _waveform_bytes(waveforms: Mapping[str, Waveform]) -> list[dict[str, str]]:
    """The levels of each source, one byte a column; 255 = the loudest peak of all sources."""
    loudest = max(float(waveform.peak.max(initial=0.0)) for waveform in waveforms.values()) or 1.0

    def column_bytes(levels: NDArray[np.float64]) -> str:
        return b64encode(np.rint(levels / loudest * 255).astype(np.uint8).tobytes()).decode()

    return [{"peak": column_bytes(w.peak), "rms": column_bytes(w.rms)} for w in waveforms.values()]


def _in_html(value: Any) -> str:
    """JSON that cannot end the HTML element around it."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
