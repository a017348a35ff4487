"""How the camera moves: rotation and direction from the picture, metres from an inertial recording, both fused."""
