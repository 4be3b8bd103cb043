"""Instrument tagging: windowed taggers behind one Protocol, and one vocabulary."""
