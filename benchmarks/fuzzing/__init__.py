"""Inputs that no client should send, and how to send them."""
