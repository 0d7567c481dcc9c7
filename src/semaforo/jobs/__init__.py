"""Offline work on a fleet that ends in a note, a profile or a policy."""
