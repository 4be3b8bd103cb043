"""All that knows Dagster, except the assets themselves."""
