"""The tables: their columns, and how songs' files are read and written."""
