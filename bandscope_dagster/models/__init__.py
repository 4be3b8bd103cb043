"""The models' inventory and the one place that gives out verified weight files."""
