"""The columns of the catalogs: values over a whole song."""

from dataclasses import replace

import polars as pl
import pyarrow as pa

from bandscope_dagster.storage.tables.columns import ERROR_COLUMNS, SONG_ID_COLUMN, Column

TEXT, FLOAT, SECONDS = pa.string(), pa.float32(), pa.float64()

STEM_SHARE = pa.struct([("stem", TEXT), ("share", FLOAT)])
LEVELS = [("peak", FLOAT), ("rms_dbfs", FLOAT), ("loudness_lufs", FLOAT)]
STEM_QUALITY = pa.struct([*STEM_SHARE, *LEVELS, ("silent", pa.bool_())])
INTERVAL = pa.struct([("start_s", SECONDS), ("end_s", SECONDS), ("score", FLOAT)])
TOP_INSTRUMENT = pa.struct([("instrument", TEXT), ("family", TEXT), ("score", FLOAT), ("seconds", FLOAT)])
SONG_INSTRUMENT = pa.struct([*TOP_INSTRUMENT, ("layer", TEXT), ("sources", pa.list_(TEXT))])

NAME_COLUMN = Column(
    "name",
    TEXT,
    "Name to show: the title in the file's tags, else the name of the file; null if the file of `songs` is missing",
    "Night Bus",
)

SONG_SUMMARY_COLUMNS = (
    Column(
        "stem_energy_share",
        pa.list_(STEM_SHARE),
        "Share of each stem in the energy of all stems, in [0, 1]; if only some stems are stored, the rest of the "
        "mixture counts as one more stem",
        [{"stem": "accompaniment", "share": 0.69}, {"stem": "vocals", "share": 0.31}],
    ),
    Column(
        "top_instruments",
        pa.list_(TOP_INSTRUMENT),
        "At most five instruments of the mixture, highest score first; seconds: time of presence",
        [{"instrument": "guitar", "family": "plucked strings", "score": 0.41, "seconds": 126.0}],
    ),
    Column(
        "status",
        TEXT,
        "'ok', 'warning' (all results are there, but `warning` says what to know of the audio), 'partial' (tables are "
        "missing, or windows have no tags), 'rejected' (the upload cannot be used) or 'failed' (the last run could not "
        "compute a table, or a file cannot be read); song_errors has the reasons",
        "ok",
        nullable=False,
    ),
    Column(
        "missing_tables",
        pa.list_(TEXT),
        "Analysis tables that have no file for the song",
        ["stems", "stem_instrument_tags"],
    ),
    Column("separator", TEXT, "Model that separated the stems", "htdemucs"),
    Column("tagger", TEXT, "Model that tagged the mixture", "bandscope-instruments"),
    Column(
        "residual_db",
        FLOAT,
        "Energy of the residual (mixture minus the sum of the stems) relative to the mixture; -200 if the sum is "
        "exact, null without stems and if only some stems are stored",
        -41.5,
        "dB",
    ),
    Column(
        "stem_quality",
        pa.list_(STEM_QUALITY),
        "Values of each stem over the whole song: share of the energy in [0, 1], largest absolute sample, RMS (dBFS; "
        "null for digital silence), integrated loudness (LUFS; null if too quiet); silent is true for a silent stem",
        [
            {
                "stem": "vocals",
                "share": 0.31,
                "peak": 0.73,
                "rms_dbfs": -21.4,
                "loudness_lufs": -18.5,
                "silent": False,
            }
        ],
    ),
    Column(
        "instruments",
        pa.list_(SONG_INSTRUMENT),
        "Every instrument that is present in the mixture or a stem, once, highest score first: its highest mean score "
        "over the sources, its longest presence in one source (seconds), its foremost layer (null if the tagger names "
        "none), and the sources where it is present. Voices have the family 'voice'. The list is empty if no "
        "instrument is present, and null if the song was not tagged",
        [
            {
                "instrument": "guitar",
                "family": "plucked strings",
                "score": 0.41,
                "seconds": 126.0,
                "layer": None,
                "sources": ["mixture", "accompaniment"],
            }
        ],
    ),
)

UPLOAD_COLUMNS = (
    Column(
        "upload",
        TEXT,
        "'present', 'gone' (the upload is no longer in the store) or 'replaced' (another file has its name, and is a "
        "song of its own); `bandscope forget --gone` removes the last two",
        "present",
    ),
)

INSTRUMENT_COLUMNS = (
    SONG_ID_COLUMN,
    Column("source", TEXT, "Audio that was tagged: 'mixture' or a stem's name", "mixture"),
    Column(
        "instrument",
        TEXT,
        "Name of the instrument in the vocabulary, or the label if the vocabulary does not have it",
        "guitar",
    ),
    Column(
        "family",
        TEXT,
        "Family of the instrument; null if the vocabulary does not have the label",
        "plucked strings",
    ),
    Column(
        "score",
        FLOAT,
        "Mean score over the windows that name the instrument; null if the tagger has no scores",
        0.41,
    ),
    Column("score_max", FLOAT, "Largest score of a window; null if the tagger has no scores", 0.66),
    Column(
        "seconds_present", FLOAT, "Time covered by the windows where the instrument is present", 126.0, "s"
    ),
    Column("windows", pa.int32(), "Number of windows where the instrument is present", 42),
    Column("first_s", SECONDS, "Start of the first window where the instrument is present", 12.0, "s"),
    Column("last_s", SECONDS, "End of the last window where the instrument is present", 171.0, "s"),
    Column(
        "layer", TEXT, "Foremost layer of the instrument; null if the tagger names no layer", "foreground"
    ),
    Column("model", TEXT, "Name of the tagger", "bandscope-instruments"),
    Column(
        "intervals",
        pa.list_(INTERVAL),
        "Intervals of presence (s), in which windows that touch or overlap are merged, with their largest score",
        [{"start_s": 12.0, "end_s": 63.0, "score": 0.66}, {"start_s": 96.0, "end_s": 171.0, "score": 0.52}],
    ),
    NAME_COLUMN,
)

_OF_SONG_ERRORS = {
    "table": "First table, in the order of the pipeline, that has no result for this reason; `tables` has all",
    "message": "Description of the error in the first table",
    "since": "Time when the error was first written",
}
_TRUNCATED = "12.40 of 187.20 s can be decoded (1 damaged packet); upload it again"

SONG_ERROR_COLUMNS = (
    *(replace(each, description=_OF_SONG_ERRORS.get(each.name, each.description)) for each in ERROR_COLUMNS),
    # Columns of version 2, after those of version 1.
    Column(
        "tables",
        pa.list_(TEXT),
        "All tables that have no result for this reason, in the order of the pipeline",
        ["songs", "decoded_waveforms", "stems"],
    ),
    Column(
        "messages",
        pa.list_(TEXT),
        "Description of the error in each of `tables`, in the same order",
        [_TRUNCATED] * 3,
    ),
)


def display_name() -> pl.Expr:
    """``NAME_COLUMN`` from the columns of ``songs``."""
    return pl.coalesce("title", "filename").alias(NAME_COLUMN.name)
