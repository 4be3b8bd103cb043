"""What is known of a stored song: its status, facts, provenance, and how to find it."""
