"""The rules that make a stored result outdated: input digests and code versions.

A result is current if its file has the input digest of the current inputs and the current code version. The planner
computes a digest before a run. ``songs/provenance.py`` computes it again from the stored lineage.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.storage.tables.lineage import Lineage

CODE_VERSIONS: Final[Mapping[str, str]] = {
    "songs": "1",
    "decoded_waveforms": "1",
    "stems": "2",
    "instrument_tags": "2",
    "stem_instrument_tags": "2",
    "song_catalog": "5",
    "instrument_catalog": "2",
    "song_errors": "3",
}
"""Table → version. Increase it whenever the same input gives other rows: Dagster then shows stored rows as outdated."""

NO_INPUTS: Final = frozenset({"server", "structured"})
"""Parameters that the lineage records, and that make nothing outdated: the software of the server that ran a tagger,
and whether it held answers to a schema."""

FLAC_BITS: Final = "flac_bits"  # of all audio tables; all other parameters belong to the separator


def digest(*parts: Any) -> str:
    """The SHA-256 of JSON-serialisable parts, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def of_song(song_id: str, limits: Mapping[str, Any]) -> str:
    """The digest for a row of ``songs``.

    The song id identifies the upload's bytes. The limits decide whether it is rejected.
    """
    return digest(song_id, dict(limits))


def of_waveform(song_hash: str, flac_bits: int) -> str:
    """The digest for ``decoded_waveforms``."""
    return digest(song_hash, {FLAC_BITS: flac_bits})


def of_stems(song_hash: str, flac_bits: int, separator: ModelIdentity) -> str:
    """The digest for ``stems``."""
    return digest(song_hash, {FLAC_BITS: flac_bits}, inputs_of(separator))


def of_mixture_tags(song_hash: str, tagger: ModelIdentity) -> str:
    """The digest for ``instrument_tags``."""
    return digest(song_hash, inputs_of(tagger))


def of_stem_tags(stems_digest: str, tagger: ModelIdentity) -> str:
    """The digest for ``stem_instrument_tags``, from the input digest of the stems."""
    return digest(stems_digest, inputs_of(tagger))


def inputs_of(model: ModelIdentity) -> dict[str, Any]:
    """The part of a model's identity that its results depend on."""
    params = {name: value for name, value in model.params.items() if name not in NO_INPUTS}
    # Exactly these names: another one would make every stored result outdated.
    return {"name": model.name, "sha256": model.sha256, "params": params}


def of_rejection(song_id: str, error: str) -> str:
    """The digest for a row of an analysis table that only passes on the song's ``error`` in ``songs``."""
    return digest(song_id, error)


def of_stored(table: str, lineage: Lineage, stems: Lineage | None) -> str:
    """The digest of the inputs recorded in the lineage of a per-song file.

    ``stems`` is the lineage of the stored stems, the input of tags of stems.
    """
    model = _model_of(lineage)
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


def tagger_of(lineage: Lineage) -> dict[str, Any]:
    """The part of the tagger in the lineage of a file with tags that the tags depend on."""
    return inputs_of(_model_of(lineage))


def _model_of(lineage: Lineage) -> ModelIdentity:
    return ModelIdentity(lineage.model, lineage.model_sha256, json.loads(lineage.params or "{}"))


def is_current(stored: Lineage, wanted: Lineage) -> bool:
    """True if the stored file has the wanted input, models, parameters and code version."""
    return (stored.input_digest, stored.code_version) == (wanted.input_digest, wanted.code_version)
