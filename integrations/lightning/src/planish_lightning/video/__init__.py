"""Video models as LightningModules."""

from planish_lightning.video.lit_video_model import LitVideoModel

__all__ = ["LitVideoModel"]
