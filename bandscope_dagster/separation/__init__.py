"""Source separation: segment models behind one Protocol, and constant-memory overlap-add."""
