"""The sensor ``new_uploads``: registers every upload as a song, and requests a run for every song without one.

The sensor asks Dagster for the state of songs, and keeps none of its own. A song is registered before its run is
requested, so an interruption between the two leaves a registered song without a run, and the next tick requests it. A
run's songs are planned when the run is created, so a song of an existing run is requested again only if that run died
or found the disk full (``lost_songs.py``). If the daemon dies during a tick, it continues with the requests of that
tick when it is back.

The cursor only avoids a look at all songs and all failed runs in every tick.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import dagster as dg
from dagster import ResourceParam
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home import is_in_use
from bandscope_dagster.orchestration.lost_songs import lost_requests
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads, untouched_songs
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges, songs_of_tags
from bandscope_dagster.orchestration.run_tags import (
    PRIORITY_TAG,
    REUSE_TAG,
    RUN_KEY_TAG,
    SENSOR_TAG,
    run_key,
    search_tags,
)
from bandscope_dagster.orchestration.sensors.intervals import interval_for
from bandscope_dagster.orchestration.song_events import UPLOADS_ASSET
from bandscope_dagster.orchestration.used_stores import remember_store
from bandscope_dagster.pipeline.copied_store import check_new
from bandscope_dagster.pipeline.listing_pace import pause_after
from bandscope_dagster.pipeline.uploads import Listing, Upload, list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

UPLOADS_SENSOR: Final = "new_uploads"
EVERY_S: Final = 5  # between ticks; the code location takes ``Settings.sensor_every_s``
REGISTERED_PER_TICK: Final = 5000
"""New songs that one tick registers at most; the next tick continues."""

SONGS_PER_TICK: Final = 256
"""Songs that one tick requests at most, so that it ends in time: Dagster writes an event for each song of a run and
planned asset, which takes about a second for 64 songs (SQLite; four with Dagster's own event log). Later ticks request
the other songs while these are processed.
"""

WAITING_SONGS: Final = 100  # in a cursor; while there are more, the position stays
UNFINISHED: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class Cursor(BaseModel):
    """The position in the list of songs, in the order of registration."""

    model_config = ConfigDict(frozen=True)

    last_song: str | None = None
    # Songs up to there that may still have to be requested: an incomplete listing lacks their uploads, or the records
    # of their run are incomplete.
    waiting: tuple[str, ...] = ()
    # Songs requested so far. It is part of the run key, so a song that was deleted and comes back is a new request.
    requested: int = Field(default=0, ge=0)
    # Runs that failed until then have successors, or were given up (seconds since 1970).
    settled: float = Field(default=0.0, ge=0.0)
    # The last listing: its end (seconds since 1970), and how long it took.
    listed: float = Field(default=0.0, ge=0.0)
    listing_s: float = Field(default=0.0, ge=0.0)

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The cursor of the last tick; a new one if there is none, or an operator typed text that is not a cursor."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()

    def pause_s(self, every_s: float) -> float:
        """Seconds until uploads are listed again, with a tick every ``every_s``; at most 0 if they are listed now."""
        since, pause = time.time() - self.listed, pause_after(self.listing_s)
        return pause - since if pause > every_s and since >= 0 else 0.0  # below 0: the clock was set back


def uploads_sensor(
    job_name: str,
    *,
    every_s: int = EVERY_S,
    songs_per_tick: int = SONGS_PER_TICK,
    turned_on: bool = False,
) -> dg.SensorDefinition:
    """The sensor that starts the job over new songs. Unless ``turned_on``, an operator turns it on in the UI."""
    status = dg.DefaultSensorStatus.RUNNING if turned_on else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=UPLOADS_SENSOR,
        job_name=job_name,
        minimum_interval_seconds=interval_for(every_s),
        default_status=status,
        description=(
            "Registers every new upload as a song, and starts runs over songs that have none: neighbours"
            " together, the oldest first. Songs of a run that died or found the disk full are requested again,"
            " after waits that grow."
            " Lists the uploads once per tick, and reads no audio."
        ),
    )
    def new_uploads(
        context: dg.SensorEvaluationContext,
        settings: ResourceParam[Settings],
        store: ResourceParam[ObjectStore],
    ) -> dg.SensorResult | dg.SkipReason:
        if is_in_use(Path(context.instance.root_directory)):
            return dg.SkipReason("`bandscope run` is running and takes the new uploads.")
        origin = context.code_location_origin
        for run_id in end_dead_runs(context.instance, code_location=origin and origin.location_name):
            context.log.warning(f"The process of run {run_id} is gone: marked as failed.")
        cursor = Cursor.parse(context.cursor)
        if (pause_s := cursor.pause_s(every_s)) > 0:
            return dg.SkipReason(
                f"The last listing took {cursor.listing_s:.1f} s; the next one comes in {pause_s:.0f} s."
            )
        before = list(context.instance.get_dynamic_partitions(SONGS_NAME))
        # The last song was deleted: start again from the first song.
        looked_through = before.index(cursor.last_song) + 1 if cursor.last_song in before else 0
        # A file that is still being written waits for the next tick.
        began = time.monotonic()
        listing = list_uploads(store, settings.settle_s)
        listing_s = time.monotonic() - began
        for line in listing.left_out:
            context.log.warning(f"Left out: {line}")
        if listing.uploads:
            remember_store(store, Path(context.instance.root_directory))
        check_new(store, listing, before)
        new = register_uploads(context.instance, listing, REGISTERED_PER_TICK)
        songs = list(context.instance.get_dynamic_partitions(SONGS_NAME))
        earlier = sorted(set(cursor.waiting).intersection(songs))
        rest = [*earlier, *songs[looked_through:]]
        by_song = listing.by_song
        untouched = untouched_songs(context.instance, rest, "songs") if rest else set[str]()
        # A key without upload was typed by a person, or its upload is gone: it would fail. Or the listing lacks it.
        unlisted = untouched - by_song.keys()
        # Dagster was killed after it had created their run, and before it had recorded the songs of the run.
        in_runs = _songs_of_unfinished_runs(context.instance, songs) if untouched else set[str]()
        undecided = untouched & in_runs | (set() if listing.is_complete else unlisted)
        untouched -= unlisted | in_runs
        limit = max(songs_per_tick, settings.songs_per_run)
        again, told, settled = lost_requests(
            context.instance, songs, by_song, cursor.settled, limit, store=store, settings=settings
        )
        for line in told:
            context.log.warning(line)
        taken = _up_to(rest, untouched, limit - sum(len(part.songs) for part, _ in again))
        requested = untouched.intersection(taken)
        requests = [
            *_created_but_never_launched(context.instance),
            *(request for _, request in again),
            *(
                _run_request(part, cursor, by_song, settings.songs_per_run)
                for part in song_ranges(songs, requested, settings.songs_per_run)
            ),
        ]
        passed, waiting = taken[len(earlier) :], undecided.intersection(rest[: len(taken)])
        waiting |= set(earlier[len(taken) :])
        if len(waiting) > WAITING_SONGS:
            passed, waiting = [], set(earlier)
        cursor = Cursor(
            last_song=passed[-1] if passed else cursor.last_song,
            waiting=tuple(sorted(waiting)),
            requested=cursor.requested + len(requested),
            settled=settled,
            listed=time.time(),
            listing_s=listing_s,
        )
        seen = (
            f"{counted(len(listing.uploads), 'upload')}, {counted(listing.ignored, 'other file')} ignored,"
            f" {counted(len(songs), 'song')}"
        )
        context.log.info(
            f"{seen}; {len(requested)} of them requested in {counted(len(requests), 'run')},"
            f" {len(untouched) - len(requested)} left for the next tick."
        )
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None
            if requests
            else "; ".join([f"Nothing new: {seen}, all of them requested", *told]),
            cursor=cursor.model_dump_json(),
            asset_events=[_observation(listing, len(new))] if new else [],
        )

    return new_uploads


def _observation(listing: Listing, new: int) -> dg.AssetObservation:
    """The listing as an event of the asset ``uploads``. It has no data version, so no song becomes outdated by it."""
    counts = {"uploads": len(listing.uploads), "ignored": listing.ignored, "new": new}
    more = {
        "unsettled": listing.unsettled,
        "left_out": len(listing.left_out),
        "forgotten": len(listing.forgotten),
    }
    return dg.AssetObservation(UPLOADS_ASSET, metadata=counts | {name: n for name, n in more.items() if n})


def _up_to(songs: Sequence[str], counted: Collection[str], limit: int) -> Sequence[str]:
    """The first ``songs``, up to the one that is number ``limit`` among ``counted``."""
    if limit <= 0:
        return songs[:0]
    found = 0
    for position, song in enumerate(songs, start=1):
        found += song in counted
        if found == limit:
            return songs[:position]
    return songs


def _run_request(
    part: SongRange, cursor: Cursor, by_song: Mapping[str, Upload], songs_per_run: int
) -> dg.RunRequest:
    # A few songs start before the queued batches of a large upload or backfill.
    first = {PRIORITY_TAG: "1"} if len(part.songs) < songs_per_run else {}
    owners = (by_song[song].owner for song in part.songs if song in by_song)
    return dg.RunRequest(
        run_key=run_key(cursor.requested, part.songs),
        tags=part.tags | search_tags(part.songs, owners) | first | {REUSE_TAG: "true"},
    )


def _songs_of_unfinished_runs(instance: dg.DagsterInstance, songs: Sequence[str]) -> set[str]:
    places = {song: place for place, song in enumerate(songs)}
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return set().union(*(songs_of_tags(run.tags, places) for run in runs))


def _created_but_never_launched(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Request again the runs of a tick that was interrupted after it created a run and before it submitted it.

    Dagster resumes such a tick for a day, and then drops it. It recognises the run by its run key.
    """
    left = instance.get_runs(
        dg.RunsFilter(tags={SENSOR_TAG: UPLOADS_SENSOR}, statuses=[dg.DagsterRunStatus.NOT_STARTED])
    )
    return [dg.RunRequest(run_key=run.tags[RUN_KEY_TAG], tags=run.tags) for run in left]
