"""Mean intersection over union, and the F-score of the boundaries between classes."""

from __future__ import annotations

import math
from statistics import fmean

import torch
from scipy.ndimage import distance_transform_edt, maximum_filter
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

TOLERANCE = 3  # pixels, 0.75 % of the diagonal of 240x320, as is usual
FINE = 1  # pixel: half the step from one pixel of the map at a quarter to the next is 2
CLOSED = 5  # pixels


class Scores:
    """Sums over images, of labels from 1 to ``classes``; 0 is unlabelled and does not count.

    The F-score is per image and class, over those that have a boundary in the truth: precision is the share of the
    prediction's boundary within `TOLERANCE` of the truth's, or `FINE`, in rows and in columns, and recall the other way
    round. A boundary is between labelled pixels alone. Between two objects NYU leaves a few pixels unlabelled, so that
    the truth is closed first: an unlabelled pixel gets the nearest label within `CLOSED` pixels.

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
        for own, other in zip(found, map(_closed, truth), strict=True):
            known = other > 0
            edges = [tuple(_edge(labels == each, known) for labels in (own, other)) for each in other[known].unique()]
            edges = [pair for pair in edges if pair[1].any()]
            for tolerance, boundary in self.boundaries.items():
                if edges:
                    boundary.append(fmean(boundary_score(*pair, tolerance) for pair in edges))

    def result(self) -> dict[str, float]:
        """Return them in per cent: mIoU over classes that occur, and the mean F-scores over images."""
        usual, fine = (100 * fmean(each) if each else math.nan for each in self.boundaries.values())
        return {
            "miou": 100 * float(self.jaccard.compute()),
            "boundary": usual,
            "boundary_fine": fine,
            "accuracy": 100 * float(self.accuracy.compute()),
        }


def boundary_score(found: Tensor, truth: Tensor, tolerance: int) -> float:
    """Return the F-score of a boundary, (H, W), beside the truth's; 0 where there is none."""
    precision, recall = (
        float((own & _grow(other, tolerance)).sum() / own.sum().clamp(min=1))
        for own, other in ((found, truth), (truth, found))
    )
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _closed(labels: Tensor) -> Tensor:
    distances, (rows, columns) = distance_transform_edt((labels == 0).numpy(), return_indices=True)
    nearest = labels[torch.from_numpy(rows), torch.from_numpy(columns)]
    return torch.where(torch.from_numpy(distances) <= CLOSED, nearest, 0)


def _edge(mask: Tensor, known: Tensor) -> Tensor:
    """Return the labelled pixels of a mask that touch labelled ones outside of it."""
    return mask & known & _grow(~mask & known, 1)


def _grow(mask: Tensor, by: int) -> Tensor:
    return torch.from_numpy(maximum_filter(mask.numpy(), 2 * by + 1, mode="constant"))
