"""What a fleet saves beside the largest model of each task, on one mixed stream."""
