"""Figures and explanations as folds over (event, effects): live and simulated ones come from one code."""
