"""The columns that only the catalogs have: what is summed up over a whole song."""

import pyarrow as pa

from bandscope_dagster.storage.tables.columns import SONG_ID_COLUMN, Column

STEM_SHARE = pa.struct([("stem", pa.string()), ("share", pa.float32())])
STEM_QUALITY = pa.struct(
    [
        ("stem", pa.string()),
        ("share", pa.float32()),
        ("peak", pa.float32()),
        ("rms_dbfs", pa.float32()),
        ("loudness_lufs", pa.float32()),
        ("silent", pa.bool_()),
    ]
)
INTERVAL = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("score", pa.float32())])
TOP_INSTRUMENT = pa.struct(
    [
        ("instrument", pa.string()),
        ("family", pa.string()),
        ("score", pa.float32()),
        ("seconds", pa.float32()),
    ]
)
SONG_INSTRUMENT = pa.struct(
    [
        *TOP_INSTRUMENT,
        ("layer", pa.string()),
        ("sources", pa.list_(pa.string())),
    ]
)

SONG_SUMMARY_COLUMNS = (
    Column(
        "stem_energy_share",
        pa.list_(STEM_SHARE),
        "Each stem's share of the energy of all stems, in [0, 1]",
        [{"stem": "accompaniment", "share": 0.69}, {"stem": "vocals", "share": 0.31}],
    ),
    Column(
        "top_instruments",
        pa.list_(TOP_INSTRUMENT),
        "At most five instruments of the mixture, best first",
        [{"instrument": "guitar", "family": "plucked strings", "score": 0.41, "seconds": 126.0}],
    ),
    Column(
        "status",
        pa.string(),
        "'ok', 'partial' (tables are missing, or windows have no tags), 'rejected' (the upload cannot be used) or "
        "'failed' (the last run could not make a table: song_errors says why)",
        "ok",
        nullable=False,
    ),
    Column(
        "missing_tables",
        pa.list_(pa.string()),
        "The analysis tables without a file for the song",
        ["stems", "stem_instrument_tags"],
    ),
    Column("separator", pa.string(), "The model that made the stems", "htdemucs"),
    Column("tagger", pa.string(), "The model that tagged the mixture", "musicnn"),
    Column(
        "residual_db",
        pa.float32(),
        "Energy of mixture minus the sum of the stems, against the mixture's: -200 for an exact sum; null "
        "without stems",
        -41.5,
        "dB",
    ),
    Column(
        "stem_quality",
        pa.list_(STEM_QUALITY),
        "Each stem over the whole song: share of the energy in [0, 1], largest absolute sample, RMS (dBFS; null "
        "for digital silence), integrated loudness (LUFS; null where too quiet), and whether it is silent",
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
        "Every instrument that is present in the mixture or a stem, once, best first: its best mean score over the "
        "sources, the longest time of presence in one of them (seconds), the foremost layer (null where the tagger "
        "names none), and the sources where it is present. Voices have the family 'voice'; a song without any "
        "instrument has an empty list, one that was not tagged null",
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

INSTRUMENT_COLUMNS = (
    SONG_ID_COLUMN,
    Column("source", pa.string(), "What was listened to: 'mixture' or a stem", "mixture"),
    Column("instrument", pa.string(), "Instrument, by its name in the vocabulary", "guitar"),
    Column("family", pa.string(), "The instrument's family", "plucked strings"),
    Column("score", pa.float32(), "Mean score over the windows that name it; null where there is none", 0.41),
    Column("score_max", pa.float32(), "Largest score", 0.66),
    Column("seconds_present", pa.float32(), "Time covered by the windows where it is present", 126.0, "s"),
    Column("windows", pa.int32(), "Windows where it is present", 42),
    Column("first_s", pa.float64(), "Start of the first window where it is present", 12.0, "s"),
    Column("last_s", pa.float64(), "End of the last window where it is present", 171.0, "s"),
    Column("layer", pa.string(), "The foremost layer that it was heard in", "foreground"),
    Column("model", pa.string(), "The tagger", "musicnn"),
    Column(
        "intervals",
        pa.list_(INTERVAL),
        "Where it is present (s), windows that touch or overlap joined to one, with the largest of their scores",
        [{"start_s": 12.0, "end_s": 63.0, "score": 0.66}, {"start_s": 96.0, "end_s": 171.0, "score": 0.52}],
    ),
)
