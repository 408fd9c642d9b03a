"""Mean intersection over union, and the F-score of the boundaries between classes."""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt, maximum_filter
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

TOLERANCE = 3  # pixels, 0.75 % of the diagonal of 240x320, as is usual
FINE = 1  # pixel: half the step from one pixel of the map at a quarter to the next is 2
CLOSED = 5  # pixels


class Scores:
    """Sums over images, of labels from 1 to ``classes``; 0 is unlabelled and does not count.

    The F-score is per image and class, over those that the truth has: precision is the share of the prediction's
    boundary within `TOLERANCE` of the truth's, or `FINE`, and recall the other way round. Between two objects NYU
    leaves a few pixels unlabelled. Where they did not count, every prediction would have the boundaries of that band,
    so that the truth is closed first: an unlabelled pixel gets the nearest label within `CLOSED` pixels.

    Source: Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013.
    """

    def __init__(self, classes: int) -> None:
        self.jaccard = MulticlassJaccardIndex(classes, ignore_index=-1)
        self.accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=-1)
        self.boundaries: dict[int, list[float]] = {TOLERANCE: [], FINE: []}

    def add(self, found: Tensor, truth: Tensor) -> None:
        """Add images (N, H, W), with classes from 1 on."""
        self.jaccard.update(found - 1, truth - 1)
        self.accuracy.update(found - 1, truth - 1)
        truth = torch.stack([_closed(each) for each in truth])
        for own, other in zip(found * (truth > 0), truth, strict=True):
            masks = [(own == each, other == each) for each in other.unique() if each > 0]
            for tolerance, boundary in self.boundaries.items():
                scores = [boundary_score(*pair, tolerance) for pair in masks]
                boundary.append(sum(scores) / max(1, len(scores)))

    def result(self) -> dict[str, float]:
        """Return them in per cent: mIoU over classes that occur, and the mean F-scores over images."""
        usual, fine = (100 * sum(each) / len(each) for each in self.boundaries.values())
        return {
            "miou": 100 * float(self.jaccard.compute()),
            "boundary": usual,
            "boundary_fine": fine,
            "accuracy": 100 * float(self.accuracy.compute()),
        }


def boundary_score(found: Tensor, truth: Tensor, tolerance: int = TOLERANCE) -> float:
    """Return the F-score of the boundaries of two masks (H, W); 0 where the found one is empty."""
    edges = [_edge(mask) for mask in (found, truth)]
    near = [_grow(edge, tolerance) for edge in edges]
    if not edges[0].any() or not edges[1].any():
        return float(edges[0].any() == edges[1].any())
    precision = float((edges[0] & near[1]).sum() / edges[0].sum())
    recall = float((edges[1] & near[0]).sum() / edges[1].sum())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _closed(labels: Tensor) -> Tensor:
    distances, (rows, columns) = distance_transform_edt((labels == 0).numpy(), return_indices=True)
    nearest = labels[torch.from_numpy(rows), torch.from_numpy(columns)]
    return torch.where(torch.from_numpy(distances) <= CLOSED, nearest, 0)


def _edge(mask: Tensor) -> Tensor:
    """Return the pixels of a mask that touch one outside of it, and are not at the image's border alone."""
    return mask & _grow(~mask, 1)


def _grow(mask: Tensor, by: int) -> Tensor:
    return torch.from_numpy(maximum_filter(mask.numpy(), 2 * by + 1, mode="constant"))
