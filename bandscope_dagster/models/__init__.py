"""The inventory of models, and their files: download, conversion and verification."""
