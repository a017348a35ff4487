"""What a model is made of, found by structure: linear layers, feed-forward networks."""

from planish.structure.feed_forward import FeedForward, find_feed_forwards
from planish.structure.linear import features, stores_transposed
from planish.structure.place import Place, place_of

__all__ = ["FeedForward", "Place", "features", "find_feed_forwards", "place_of", "stores_transposed"]
