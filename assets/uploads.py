"""``uploads``: the head of the graph, which Bandscope reads and does not make. The sensor observes it."""

from typing import Final

import dagster as dg

from bandscope_dagster.orchestration.song_events import UPLOADS_ASSET

uploads: Final = dg.AssetSpec(
    UPLOADS_ASSET,
    description="The folder uploads/ of the object store. People and programs put songs there, and each song becomes a "
    "partition. The sensor new_uploads observes it: uploads seen, other files ignored, and new songs.",
    group_name="songs",
    kinds={"file"},
    owners=["team:bandscope"],
)
