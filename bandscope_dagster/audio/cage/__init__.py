"""Decoding of uploads in processes without rights."""
