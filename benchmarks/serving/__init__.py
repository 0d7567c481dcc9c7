"""Serving beside peers: the same model files over the same bodies, each server as its own users would run it."""
