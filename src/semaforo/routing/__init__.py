"""Learned routing: predictors of quality, thresholds, and the figures that judge them; pure, with NumPy."""
