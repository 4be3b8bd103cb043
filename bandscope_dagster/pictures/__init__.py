"""Pictures of songs: the envelopes of mixture and stems, and the instruments over time."""
