"""The simulated driver: the same machines under a virtual clock, and the replay of journals."""
