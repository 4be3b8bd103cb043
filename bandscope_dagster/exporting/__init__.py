"""Export stems as audio files for producers: names, levels, formats, folders."""
