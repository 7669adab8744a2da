"""What reviewers say of labels, as truth to calibrate on.

A voxel that somebody set to a class is of that class. What stands in an accepted frame is right as
labeled, where it was trusted: that is what the reviewer saw. In a rejected frame something is wrong
and nobody said what, so its trusted occupied voxels count as wrong but for those that were set:
rather too careful than too sure. Frames that nobody judged count where they were painted, and
voxels set to nothing are unknown.

Legend: X Y Z voxels.
"""

from __future__ import annotations

import numpy as np

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SetupError
from datasets.frames import Frame
from datasets.labels.store import LabelStore
from datasets.labels.voxel_labels import MaskBit
from datasets.reviews.entries import Verdict
from datasets.reviews.overlay import Reviews
from datasets.taxonomy import IGNORE_ID


class ReviewedFrames:
    """The reviews of a store as ground truth.

    Raises:
        SetupError: nobody has judged or painted a frame, or a review is damaged.
    """

    def __init__(self, store: LabelStore) -> None:
        self.store, self.reviews = store, Reviews(store)
        self.reviews.require_whole()
        if not self.scene_ids():
            raise SetupError(
                f"label store {store.place}: no frame is accepted, rejected or painted; review "
                "some (viz/inspect.py)"
            )

    def scene_ids(self) -> tuple[str, ...]:
        """Scenes with a frame that somebody judged or painted."""
        return tuple(
            scene_id
            for scene_id in self.reviews.scene_ids()
            if self.reviews.edits(scene_id) or self.reviews.verdicts(scene_id)
        )

    def labels(self, frame: Frame) -> GroundTruth | None:
        """What is known of a frame; None: nobody said anything.

        Raises:
            SceneError: its labels cannot be read.
        """
        verdict = self.reviews.verdicts(frame.scene_id).get(frame.token)
        edits = self.reviews.edits(frame.scene_id).get(frame.token, ())
        said = None if verdict is None else verdict.verdict
        if said not in (Verdict.ACCEPT, Verdict.REJECT) and not edits:
            return None
        header, scene = self.store.header, self.store.scene(frame.scene_id)
        labels = scene.frame(scene.index_of(frame.token))
        trusted = (labels.mask & np.uint8(MaskBit.TRUSTED)) > 0
        occupied = labels.semantics != header.taxonomy.free_id
        semantics = np.full(labels.semantics.shape, IGNORE_ID, np.uint8)
        if said is Verdict.ACCEPT:
            semantics[trusted] = labels.semantics[trusted]
        elif said is Verdict.REJECT:
            # wrong whatever it is: free, which no occupied label can be right for
            semantics[trusted & occupied] = header.taxonomy.free_id
        for edit in edits:
            semantics[np.unravel_index(edit.voxels, header.grid.shape)] = edit.class_id
        return GroundTruth(grid=header.grid, taxonomy=header.taxonomy, semantics=semantics)
