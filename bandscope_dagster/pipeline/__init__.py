"""The two steps per song, for a batch of songs: list uploads, validate, plan, stream, analyze, report outcomes."""
