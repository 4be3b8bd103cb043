"""Stems as audio files for producers: their names, levels, formats, and where they lie."""
