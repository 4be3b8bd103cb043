"""The data card of a store: ``README.md`` with counts, models, what the scores mean, and known limits.

Its YAML head is what hubs of data sets read: a store that is copied to one loads by the names of its tables.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from bandscope_dagster.describing.holdings import Holdings, UsedModel
from bandscope_dagster.describing.own_file import marked
from bandscope_dagster.describing.stated import Stated, plain
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, SONG_CATALOG, Table, catalog_key
from bandscope_dagster.tagging.instruments import NAME as OUR_TAGGER
from bandscope_dagster.tagging.presence_rule import PresenceRule, PresentFrom
from bandscope_dagster.tagging.registry import WITHOUT_SCORES

CARD_KEY: Final = "README.md"

SHOWN_WEIGHTS: Final = 3  # digests per model
SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Upper bound of songs → the hub's name for the size."""

CALIBRATION: Final = (
    "Its scores estimate the probability that the instrument plays in the window. On phrases and mixtures of recorded "
    "notes that it never heard, the expected calibration error is 0.009 and 0.020, and micro-F1 is .72 and .56; for 25 "
    "of its 38 classes no recorded notes were at hand. Songs differ from both."
)
"""Of the embedded tagger; docs/tagging.md has how it was measured."""

LIMITS: Final = (
    "Stems and tags are made by models, and no one has checked them. They are no ground truth.",
    "A separator leaves remains of other parts in each stem, and the stem of a part that a song does not have is not "
    "silent. `stem_quality` and `residual_db` in `song_catalog` have the levels.",
    "An instrument that no class of the tagger covers is missed, or heard as a similar one.",
    "Times of instruments are as coarse as the windows of the tagger.",
    "Titles, artists and genres are those in the files' tags, and may be wrong, missing or hostile text.",
    "`uploads/`, if it was copied too, has the songs as they were uploaded. The waveforms and stems can be turned back "
    "into the songs, so the rights in the songs apply to them.",
)


def data_card(holdings: Holdings, stated: Stated, rules: PresentFrom, written_at: datetime) -> str:
    """The text of the card. ``rules`` decide which instruments count as present."""
    parts = (
        _head(holdings, stated),
        f"# {plain(stated.name)}",
        _summary(holdings, written_at),
        _rights(stated),
        "## What is here",
        _tables(holdings),
        _counts("status", holdings.statuses),
        _counts("reason in `song_errors`", holdings.reasons),
        "## How it was made",
        _made(holdings),
        _models(holdings),
        "## What the scores mean",
        "\n".join(f"- {line}" for line in _scores(holdings, rules)),
        "## Known limits",
        "\n".join(f"- {line}" for line in LIMITS),
    )
    return marked("\n\n".join(part for part in parts if part) + "\n")


def _head(holdings: Holdings, stated: Stated) -> str:
    """The YAML; a JSON value is a value in YAML too."""
    size = next((name for bound, name in SIZES if holdings.songs < bound), "n>1M")
    lines = [
        "---",
        f"pretty_name: {_yaml(stated.name)}",
        *_licence_lines(stated.licence),
        "tags: [music, audio, source-separation, instrument-recognition, bandscope]",
        f"size_categories: [{json.dumps(size)}]",
        "configs:",
    ]
    # The hub shows the first one, or the one that is marked: the small table about all songs.
    for table in holdings.tables:
        lines += [f"- config_name: {table.name}", f'  data_files: "{_files(table)}"']
        lines += ["  default: true"] if table is SONG_CATALOG else []
    return "\n".join([*lines, "---"])


def _yaml(text: str) -> str:
    """A text as YAML: JSON, but with characters as they are, because YAML reads JSON's pairs of surrogates as two."""
    return json.dumps(text, ensure_ascii=False)


def _licence_lines(licence: str | None) -> list[str]:
    """The licence as hubs take it: an identifier in lower case, or "other" with a name and, for a URL, a link."""
    if licence is None:
        return ["license: unknown"]
    if re.fullmatch(r"[A-Za-z0-9.+-]+", licence):
        return [f"license: {_yaml(licence.lower())}"]
    link = [f"license_link: {_yaml(licence)}"] if re.match(r"https?://", licence) else []
    return ["license: other", f"license_name: {_yaml(licence)}", *link]


def _summary(holdings: Holdings, written_at: datetime) -> str:
    return (
        f"{holdings.songs:,} songs, {holdings.hours:,.2f} hours with all results, as Parquet: decoded audio, separated "
        "stems, and the instruments in both over time. Made by Bandscope. The counts are those of the catalogs of "
        f"{holdings.as_of:%Y-%m-%d %H:%M} UTC; this page was written at {written_at:%Y-%m-%d %H:%M} UTC by "
        "`bandscope describe`, and is not updated by itself."
    )


def _rights(stated: Stated) -> str:
    lines = [
        f"- Licence of the songs: {plain(stated.licence)}, as stated by the owner of this store."
        if stated.licence
        else "- Licence of the songs: **not stated**. Their files do not say it. Ask the owner of this store before "
        "you use or publish anything of it.",
        f"- Creator: {plain(stated.creator)}" if stated.creator else "",
        f"- Published at: {plain(stated.url)}" if stated.url else "",
        f"- Cite as: {plain(stated.citation)}" if stated.citation else "",
    ]
    return "\n".join(line for line in lines if line)


def _tables(holdings: Holdings) -> str:
    rows = [f"| `{table.name}` | `{_files(table)}` | {table.description} |" for table in holdings.tables]
    head = "Columns have descriptions and units in the metadata of each file."
    return "\n".join([head, "", "| table | files | rows |", "|---|---|---|", *rows])


def _files(table: Table) -> str:
    """The files of a table, as a pattern from the root of the store."""
    return catalog_key(table) if table in CATALOG_TABLES else f"{table.name}/*.parquet"


def _counts(what: str, counts: Mapping[str, int]) -> str:
    rows = [f"| {plain(name)} | {songs:,} |" for name, songs in counts.items()]
    return "\n".join([f"| {what} | songs |", "|---|---|", *rows]) if rows else ""


def _made(holdings: Holdings) -> str:
    software = "; ".join(
        f"{plain(package)} {', '.join(map(plain, versions))}"
        for package, versions in holdings.software.items()
    )
    known = f" Versions in the files of {holdings.sampled:,} songs: {software}." if software else ""
    return (
        "Each upload was decoded to its end, resampled to 44.1 kHz stereo and checked; one that is damaged or no audio "
        "is a row with an error. The separator split the rest into stems, and the tagger named instruments in windows "
        "of the mixture and of each stem. Audio is FLAC in blocks of 10 s: multiply decoded samples by `gain`. "
        f"The footer of each file has its model, digest of the weights, and parameters.{known}"
    )


def _models(holdings: Holdings) -> str:
    if not holdings.models:
        return ""
    rows = [
        f"| {plain(model.name)} | {model.kind} | {model.songs:,} | {_licence(model)} | {_weights(model)} |"
        for model in holdings.models
    ]
    known = {
        name: entry
        for model in holdings.models
        for name, entry in {model.name: model.known, **model.members}.items()
        if entry
    }
    cited = [f"- {plain(name)}: {plain(entry.citation)}" for name, entry in known.items()]
    head = (
        "| model | kind | songs | licence of the weights | SHA-256 of the weights |",
        "|---|---|---|---|---|",
    )
    return "\n".join([*head, *rows, "", *cited])


def _licence(model: UsedModel) -> str:
    if model.members:  # a preset has no licence of its own
        return "; ".join(f"{plain(name)}: {_licence_of(entry)}" for name, entry in model.members.items())
    return _licence_of(model.known)


def _licence_of(entry: Model | None) -> str:
    return entry.licence if entry else "unknown to this version of Bandscope"


def _weights(model: UsedModel) -> str:
    digests = [f"`{plain(sha256)}`" for sha256 in model.weights if sha256]
    served = [f"on a server, not hashed: {plain(name)}" for name in model.served]
    shown = [*digests[:SHOWN_WEIGHTS], *served[:SHOWN_WEIGHTS]]
    more = len(digests) + len(served) - len(shown)
    return "; ".join(shown) + (f" and {more} more" if more else "") or "not sampled"


def _scores(holdings: Holdings, rules: PresentFrom) -> Iterator[str]:
    taggers = [model.name for model in holdings.models if model.kind == "tagger"]
    if OUR_TAGGER in taggers:
        yield f"{plain(OUR_TAGGER)}: {CALIBRATION}"
    others = [plain(name) for name in taggers if name != OUR_TAGGER]
    if others:
        yield (
            f"{', '.join(others)}: how strongly the model answers for the label, in [0, 1], which is no probability; "
            "null if the model has no scores. Compare scores of one tagger only."
        )
    for name in taggers:
        yield f"{plain(name)}: {_rule(rules.get(name, rules[None]), scored=name not in WITHOUT_SCORES)}"
    yield (
        "`score` in `instrument_catalog` is the mean over all windows, also those in which the instrument rests; "
        "`score_max` is that of its best window. Use `seconds_present > 0` to ask if an instrument is there."
    )


def _rule(rule: PresenceRule, *, scored: bool) -> str:
    """The rule by which an instrument counts as present, in words; ``scored``: the tagger gives scores."""
    softer = f"Windows of a stem that are {-rule.audible_db:g} dB softer than the song never count."
    if not scored:
        return f"it has no scores; an instrument is present in all windows in which it is named. {softer}"
    bounds = sorted({rule.bound, *rule.bounds.values()}) if not rule.bounds else sorted(rule.bounds.values())
    bound = f"{bounds[0]:.3g}" if len(bounds) == 1 else f"its own bound, {bounds[0]:.3g} to {bounds[-1]:.3g}"
    share = (
        ""
        if rule.best_share is None
        else f", and the mean of the best {rule.best_share:.0%} of the windows of a source (at least {rule.fewest}) "
        "reaches it too"
    )
    return f"an instrument is present in the windows in which its score reaches {bound}{share}. {softer}"
