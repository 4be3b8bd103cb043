"""Train the embedded instrument tagger; see ``README.md`` in this folder and ``docs/tagging.md``."""
