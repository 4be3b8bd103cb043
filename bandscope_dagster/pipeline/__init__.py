"""What the two per-song steps do with a batch of songs: upload, check, plan, stream, outcome."""
