"""The old place of ``datasets.labels``: scripts of users import it from here."""

from datasets.labels import FrameLabels, LabelStore, MaskBit, SceneLabels, StoreHeader

__all__ = ["FrameLabels", "LabelStore", "MaskBit", "SceneLabels", "StoreHeader"]
