"""What the commands of ``bandscope`` do; ``cli.py`` only reads the command line."""
