"""Object stores, and the tables that are stored in them as Parquet files."""
