"""An HTML page for every song, which plays its stems and shows its instruments, and an index of all pages."""
