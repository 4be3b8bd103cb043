"""The tables: their columns, and reading and writing their files."""
