"""What graphs cost: overhead beside the peers', hops, cancelling, and random graphs that must not hang."""
