"""Parsing the answers of language models."""
