"""Read a label store as a PyTorch data set: classes, and which voxels to train on.

python scripts/examples/torch_dataset.py runs/labels.zarr 2     # processes that read
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.labels import LabelStore, MaskBit


class StoreDataset(Dataset[tuple[Tensor, Tensor]]):
    """Item: classes (X, Y, Z) uint8 and the trusted mask (X, Y, Z) bool of a frame."""

    def __init__(self, path: Path) -> None:
        self.store = LabelStore.open(path)
        scenes = map(self.store.scene, self.store.scene_ids())
        self.frames = [(scene.scene_id, k) for scene in scenes for k in range(len(scene))]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene_id, k = self.frames[index]
        labels = self.store.scene(scene_id).frame(k)
        trusted = (labels.mask & MaskBit.TRUSTED) > 0
        return torch.from_numpy(labels.semantics), torch.from_numpy(trusted)


def main(store: Path, workers: int) -> None:
    context = "forkserver" if workers else None  # zarr can deadlock in a plain fork
    frames = StoreDataset(store)
    loader = DataLoader(
        frames, 2, shuffle=True, num_workers=workers, multiprocessing_context=context
    )
    for classes, trusted in loader:
        print(f"batch {tuple(classes.shape)}: {trusted.float().mean():.1%} of the voxels trusted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
