"""Whatever blocks, waits or fails by itself: one file per neighbour."""
