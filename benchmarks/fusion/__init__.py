"""What fusion and cascades are worth, on real data."""
