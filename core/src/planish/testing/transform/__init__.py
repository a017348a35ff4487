"""Clauses of model transforms, by subject; :class:`planish.testing.TransformContract` has them all."""
