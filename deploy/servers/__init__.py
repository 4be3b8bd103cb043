"""Real servers as processes of this machine, for `deploy/local_stack.sh`, the tests and the benchmarks."""
