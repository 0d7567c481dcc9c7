"""Learning to route: from a table of scores to a trained router; needs scikit-learn."""
