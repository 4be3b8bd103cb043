"""Everything that uses Dagster, except the assets and the command line."""
