"""Models that work together: graphs of steps, how a run of one goes on, and how several answers become one.

Pure: nothing here reads a clock, waits, or knows where a model runs.
"""
