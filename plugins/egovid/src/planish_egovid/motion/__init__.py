"""How strongly and how evenly the picture moves."""
