"""Fuzzing: mutated input for all code that reads data from users, models and operators."""
