"""The HTDemucs models."""
