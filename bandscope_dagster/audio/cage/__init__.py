"""Decoding uploads in processes without privileges."""
