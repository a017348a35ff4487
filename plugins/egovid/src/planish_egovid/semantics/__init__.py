"""Whether a clip shows what its text says, and image embeddings for whoever else needs them.

Importing it, and running it under the default options, imports no torch.
"""

from planish_egovid.semantics.axis import TextAxis, TextColumns, TextConfig
from planish_egovid.semantics.image_embedding import ImageEmbedding

__all__ = ["ImageEmbedding", "TextAxis", "TextColumns", "TextConfig"]
