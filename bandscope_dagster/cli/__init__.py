"""The `bandscope` command: one module per subcommand."""
