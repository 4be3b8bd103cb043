"""Bandscope: songs in an object store become stems, instrument tags and queryable Parquet."""
