"""Fusion of an inertial recording with what the picture says: clock, mounting, filter and smoother."""
