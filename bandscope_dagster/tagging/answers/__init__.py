"""Reading the answers of language models."""
