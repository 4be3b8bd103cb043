"""Instrument tagging: taggers that share one Protocol, and one vocabulary for their labels."""
