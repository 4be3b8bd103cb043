"""The words and numbers on the page of a song, for its template."""

from collections.abc import Iterator
from typing import Any

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.pages.checks_view import MARKS, checks_view, residual
from bandscope_dagster.pages.lineage_view import lineage_view
from bandscope_dagster.pages.text import clock, decibels, megabytes, percent, ticks, visible
from bandscope_dagster.pages.timeline_view import timeline_view
from bandscope_dagster.separation.quality import StemQuality
from bandscope_dagster.songs.facts import SongFacts
from bandscope_dagster.songs.status import Problem, Status
from bandscope_dagster.storage.tables.schemas import SONGS


def title_of(facts: SongFacts) -> str:
    """The song's title; its file name or id if it has none."""
    return visible(facts.song["title"] or facts.song["filename"] or facts.song["song_id"])


def song_view(facts: SongFacts) -> dict[str, Any]:
    """The values for ``song.html``, except its summary."""
    song = facts.song
    byline = [visible(song[name]) for name in ("artist", "album", "genre") if song[name]]
    return {
        "title": title_of(facts),
        "byline": byline,
        "status": facts.status,
        "facts": list(_facts(facts)),
        "notices": list(_notices(facts)),
        "duration": clock(facts.seconds),
        "seconds": facts.seconds,
        "ticks": [
            {
                "at": round(100 * time / facts.seconds, 3),
                "label": label,
                "anchor": "start" if time == 0 else "end" if time > 0.97 * facts.seconds else "middle",
            }
            for time, label in (ticks(facts.seconds) if facts.sources else [])
        ],
        "tracks": [_track(facts, source) for source in facts.sources],
        "timeline": timeline_view(facts) if facts.sources else {"parts": [], "families": [], "scores": None},
        "levels": list(_levels(facts)),
        "checks": [check | {"mark": MARKS[check["outcome"]]} for check in checks_view(facts)],
        "lineage": list(lineage_view(facts)),
    }


def reason_of(facts: SongFacts) -> str:
    """The first sentence of the first notice about the song; empty if there is none."""
    return next((line for notice in _notices(facts) for line in notice["lines"]), "")


def _facts(facts: SongFacts) -> Iterator[tuple[str, str]]:
    song = facts.song
    if song["filename"]:
        yield "File", visible(song["filename"])
    if facts.seconds:
        yield "Duration", clock(facts.seconds)
    if song["loudness_lufs"] is not None:
        yield "Loudness", decibels(song["loudness_lufs"], "LUFS")
    if song["peak"] is not None:
        yield "Peak", f"{song['peak']:.3f}"
    if song["codec"]:
        rate = f"{song['sample_rate'] / 1000:g} kHz" if song["sample_rate"] else ""
        yield "Format", visible(f"{song['codec']} {rate}")
    if song["channels"]:
        yield "Channels", {1: "mono", 2: "stereo"}.get(song["channels"], str(song["channels"]))
    if song["bit_rate"]:
        yield "Bit rate", f"{song['bit_rate'] / 1000:.0f} kbit/s"
    if song["size_bytes"] is not None:
        yield "Size", megabytes(song["size_bytes"])
    if song["owner"]:
        yield "Owner", visible(song["owner"])
    if song["uploaded_at"] is not None:
        yield "Uploaded", f"{song['uploaded_at']:%Y-%m-%d}"
    if facts.quality is not None and facts.quality.residual_db is not None:
        yield "Residual", residual(facts.quality.residual_db)
    elif facts.quality is not None:
        yield "Stems", f"only {visible(', '.join(stem.stem for stem in facts.quality.stems))}"
    for title, table in (("Separator", "stems"), ("Tagger", "instrument_tags")):
        lineage = facts.lineages.get(table)
        if lineage is not None and lineage.model:
            yield title, visible(lineage.model)


def _notices(facts: SongFacts) -> Iterator[dict[str, Any]]:
    """The reasons why the song has no results, or not all of them."""
    headings = {
        Status.REJECTED: "This upload was rejected",
        Status.FAILED: "This song could not be processed",
        Status.PARTIAL: "Some results are missing",
    }
    warning = facts.evidence.warning
    if warning is not None and facts.evidence.song_error is None:
        yield {"heading": "About this audio", "lines": [visible(warning, 1000)]}
    if facts.status not in headings:
        return
    lines: dict[str, str] = {}  # error → sentence: several tables may have the same error
    for problem in facts.evidence.problems:
        lines.setdefault(problem.error, _sentence(problem))
    missing = facts.evidence.missing
    if missing and facts.status is Status.PARTIAL:
        lines["missing"] = f"Not computed: {', '.join(missing)}. Run `bandscope run` to compute them."
    yield {"heading": headings[facts.status], "lines": list(lines.values())}


def _sentence(problem: Problem) -> str:
    where = "" if problem.stage == SONGS.name else f"{problem.table}: "
    return visible(f"{where}{problem.windows_text}{problem.error}")


def _track(facts: SongFacts, source: str) -> dict[str, Any]:
    mixture = source == MIXTURE
    level = decibels(facts.song["loudness_lufs"], "LUFS") if mixture else ""
    for stem in facts.quality.stems if facts.quality else ():
        if stem.stem == source:
            level = f"{_loudness(stem)} · {percent(stem.share)}"
    return {"name": visible(source), "mutable": not mixture, "level": level}


def _loudness(stem: StemQuality) -> str:
    return "silent" if stem.silent else decibels(stem.loudness_lufs, "LUFS")


def _levels(facts: SongFacts) -> Iterator[dict[str, Any]]:
    song = facts.song
    if song["peak"] is not None:
        yield {
            "name": MIXTURE,
            "loudness": decibels(song["loudness_lufs"], "LUFS"),
            "peak": f"{song['peak']:.3f}",
            "rms": decibels(song["rms_dbfs"], "dBFS"),
            "share": None,
        }
    for stem in facts.quality.stems if facts.quality else ():
        yield {
            "name": visible(stem.stem),
            "loudness": _loudness(stem),
            "peak": f"{stem.peak:.3f}",
            "rms": decibels(stem.rms_dbfs, "dBFS"),
            "share": stem.share,
        }
