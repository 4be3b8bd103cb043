"""Hostile files in, blocks of samples out: probe, decode, resample, measure, and FLAC blocks."""
