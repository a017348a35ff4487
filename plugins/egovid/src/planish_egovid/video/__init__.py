"""Reading video: what is asked of a clip, decoded once for everyone who asks."""
