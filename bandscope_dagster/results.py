"""The results of songs for other programs: ``from bandscope_dagster import results``.

```python
for song in results.follow(after=last):
    print(song.song_id, song.status, [heard.instrument for heard in song.instruments])
    last = song.cursor
```
"""

from bandscope_dagster.orchestration.result_cursor import CursorError
from bandscope_dagster.orchestration.song_results import (
    START,
    HeardInstrument,
    Outcome,
    SongResult,
    end_of_results,
    follow,
    stored,
)

__all__ = [
    "START",
    "CursorError",
    "HeardInstrument",
    "Outcome",
    "SongResult",
    "end_of_results",
    "follow",
    "stored",
]
