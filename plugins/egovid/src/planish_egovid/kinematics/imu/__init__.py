"""Inertial recordings: reading, repairing, and finding gravity in them."""
