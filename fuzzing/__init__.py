"""Mutated input for everything that reads what strangers, models and operators write."""
