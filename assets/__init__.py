"""The asset graph, in the order in which data flows."""
