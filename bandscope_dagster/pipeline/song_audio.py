"""The audio tables of one song: encoder threads turn blocks into rows, and one writer thread stores the rows."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE
from bandscope_dagster.audio.flac import Quantized, dequantize, encode
from bandscope_dagster.audio.levels import peak, rms_dbfs
from bandscope_dagster.pictures.envelope import EnvelopeMeter
from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.separation.chosen_stems import chosen_stems
from bandscope_dagster.separation.quality import QualityMeter
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.schemas import STEMS, TABLES
from bandscope_dagster.storage.tables.song_tables import Written

Row = dict[str, Any]


class SongAudio:
    """Encodes, measures and stores the blocks of one song's ``decoded_waveforms`` and ``stems``."""

    def __init__(self, plan: SongPlan, store: ObjectStore, encoders: Executor, stems: Sequence[str]) -> None:
        separated = plan.compute.get(STEMS.name)
        chosen = chosen_stems(json.loads(separated.params)) if separated is not None else None
        self.quality = QualityMeter(stems, all_stems=chosen is None)  # of the stored stems
        self.envelopes: defaultdict[str, EnvelopeMeter] = defaultdict(EnvelopeMeter)  # by source
        self._plan = plan
        self._store = store
        self._encoders = encoders
        self._measured: dict[str, Future[Row]] = {}  # each stem's latest block
        self._blocks: defaultdict[str, int] = defaultdict(int)  # table → blocks so far
        self._writers: dict[str, AudioTableWriter] = {}

    @property
    def tables(self) -> Sequence[str]:
        """The tables with a file, finished or not."""
        return [*self._writers]

    def encode(self, table: str, sources: Mapping[str, Quantized]) -> list[Future[Row]]:
        """Start to encode the next block of ``table``; its rows, one per source, in order. For the model's thread."""
        index = self._blocks[table]
        self._blocks[table] += 1
        rows: list[Future[Row]] = []
        for source, block in sources.items():
            before = self._measured.get(source) if table == STEMS.name else None
            rows.append(self._encoders.submit(self._row, table, index, source, block, before))
            if table == STEMS.name:
                self._measured[source] = rows[-1]
        return rows

    def store(self, table: str, rows: Sequence[Future[Row]]) -> None:
        """Add one block to its table, once it is encoded. For the writer thread, as are the methods below."""
        self._writer(table).add([row.result() for row in rows])

    def commit(self, table: str, notes: Mapping[str, str]) -> Written:
        """Publish the table's file, with ``notes`` in its metadata."""
        return self._writer(table).commit(notes)

    def discard(self) -> None:
        """Discard files that are not published."""
        for writer in self._writers.values():
            writer.abort()

    def _writer(self, table: str) -> AudioTableWriter:
        if table not in self._writers:
            self._writers[table] = AudioTableWriter(
                self._store, TABLES[table], self._plan.compute[table].written_now()
            )
        return self._writers[table]

    def _row(self, table: str, index: int, source: str, block: Quantized, before: Future[Row] | None) -> Row:
        """In an encoder thread: a block as a row. A stem's block is measured too, after the stem's block ``before``."""
        stored = dequantize(block)
        song_id = self._plan.song_id
        row: Row = {
            "song_id": song_id,
            "block": index,
            "start_frame": index * BLOCK_FRAMES,
            "frames": stored.shape[-1],
            "sample_rate": SAMPLE_RATE,
            "channels": len(stored),
            "peak": peak(stored),
            "rms_dbfs": rms_dbfs(stored),
            "audio": {"bytes": encode(block), "path": f"{song_id}-{source}-{index:05d}.flac"},
            "gain": block.gain,
            "error": None,
        }
        if table == STEMS.name:
            row |= {"stem": source, "model": self._plan.compute[table].model}
            if before is not None:
                before.result()  # one filter takes a stem's blocks in order; earlier tasks never wait for later ones
            self.quality.add_stem(source, stored)
            self.envelopes[source].push(stored)
        return row
