"""The rules that decide whether a stored result is outdated: input digests and code versions.

A result is current while its file's input digest and code version are those that the present inputs and code give.
The planner computes a digest before a run; provenance computes it again from what a stored file says of itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.storage.tables.lineage import Lineage

CODE_VERSIONS: Final[Mapping[str, str]] = {
    "songs": "1",
    "decoded_waveforms": "1",
    "stems": "2",
    "instrument_tags": "2",
    "stem_instrument_tags": "2",
    "song_catalog": "4",
    "instrument_catalog": "2",
    "song_errors": "2",
}
"""Table → version. Raise it whenever the same input gives other rows: Dagster then shows stored rows as outdated."""

FLAC_BITS: Final = "flac_bits"  # the one parameter of an audio table that is no parameter of the separator


def digest(*parts: Any) -> str:
    """SHA-256 over JSON-serialisable parts, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def of_song(song_id: str, limits: Mapping[str, Any]) -> str:
    """For a row of ``songs``: the song id names the upload's content, and the limits decide about it."""
    return digest(song_id, dict(limits))


def of_waveform(song_hash: str, flac_bits: int) -> str:
    """For ``decoded_waveforms``."""
    return digest(song_hash, {FLAC_BITS: flac_bits})


def of_stems(song_hash: str, flac_bits: int, separator: ModelIdentity) -> str:
    """For ``stems``."""
    return digest(song_hash, {FLAC_BITS: flac_bits}, asdict(separator))


def of_mixture_tags(song_hash: str, tagger: ModelIdentity) -> str:
    """For ``instrument_tags``."""
    return digest(song_hash, asdict(tagger))


def of_stem_tags(stems_digest: str, tagger: ModelIdentity) -> str:
    """For ``stem_instrument_tags``, from the input digest of the stems."""
    return digest(stems_digest, asdict(tagger))


def of_rejection(song_id: str, error: str) -> str:
    """For the row in an analysis table that passes the song's ``error`` in ``songs`` on."""
    return digest(song_id, error)


def of_stored(table: str, lineage: Lineage, stems: Lineage | None) -> str:
    """The digest that the inputs named in a file's lineage give, for a per-song table.

    ``stems`` is the lineage of the stored stems, from which tags of stems were made.
    """
    model = ModelIdentity(lineage.model, lineage.model_sha256, json.loads(lineage.params or "{}"))
    if table == "songs":
        return of_song(lineage.song_id, model.params)
    if table == "instrument_tags":
        return of_mixture_tags(lineage.song_hash, model)
    if table == "stem_instrument_tags":
        return of_stem_tags(stems.input_digest if stems else "", model)
    bits = model.params.get(FLAC_BITS, 0)
    if table == "decoded_waveforms":
        return of_waveform(lineage.song_hash, bits)
    own = {name: value for name, value in model.params.items() if name != FLAC_BITS}
    return of_stems(lineage.song_hash, bits, ModelIdentity(model.name, model.sha256, own))


def is_current(stored: Lineage, wanted: Lineage) -> bool:
    """True if a stored file came from the same input, models and parameters, by the same code."""
    return (stored.input_digest, stored.code_version) == (wanted.input_digest, wanted.code_version)
