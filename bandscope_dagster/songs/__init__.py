"""Everything known about a stored song: status, checks, facts, provenance, and how to find it."""
