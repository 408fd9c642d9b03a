"""Handwritten digits of scikit-learn: 1797 images of 8x8 pixels that come with the library."""

from __future__ import annotations

import torch

from ddfnet.data.classification.splits import Split, Splits, stratified_split


def load() -> Splits:
    """Load the digits, three quarters of them for training.

    Returns:
        1347 and 450 images (1, 8, 8) in ten classes.

    Example:
        >>> from ddfnet.data.classification import digits
        >>> digits.load().test.images.shape
        torch.Size([450, 1, 8, 8])
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    images = torch.from_numpy(source.images).mul(15).to(torch.uint8).unsqueeze(1)  # the values are 0 to 16
    train, test = stratified_split(Split(images, torch.from_numpy(source.target).long()), test_share=0.25)
    return Splits(
        name="digits",
        train=train,
        test=test,
        classes=tuple(map(str, source.target_names)),
        origin=(
            "The handwritten digits of scikit-learn, 8x8 pixels. They have no test part of their own: a quarter was "
            "set aside at random, the same one in every run, so that those who wrote one part wrote the other too."
        ),
    )
