"""Describes a store as a data set: a data card for people, and Croissant for programs."""
