"""Optical flow of a clip: computed once, checked against its reverse, and shared by the axes."""
