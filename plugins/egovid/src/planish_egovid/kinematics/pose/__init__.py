"""Camera poses: rotations, conventions, two-view geometry, trajectories and their errors."""
