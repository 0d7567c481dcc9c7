"""The decisions, as pure functions and small values: route, balance, admit, batch, share, break, scale."""
