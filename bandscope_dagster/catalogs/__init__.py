"""The compact tables over all songs: their rows, and refreshes that read only changed songs."""
