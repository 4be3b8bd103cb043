"""The compact tables over all songs."""
