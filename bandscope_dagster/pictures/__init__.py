"""A picture of a song: the envelopes of its mixture and stems, and its instruments over time."""
