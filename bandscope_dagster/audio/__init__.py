"""From hostile files to blocks of samples: probe, decode, resample, measure, and store as FLAC."""
