"""The object store, the table contracts, and how rows and audio become Parquet."""
