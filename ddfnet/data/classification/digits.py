"""scikit-learn's handwritten digits: 1797 pictures of 8x8 pixels that come with the library."""

from __future__ import annotations

import torch

from ddfnet.data.classification.splits import Labelled, Splits, split


def load() -> Splits:
    """The digits, three quarters for training.

    Returns:
        Splits of pictures (N, 1, 8, 8), 1347 and 450 of them, in ten classes.

    Example:
        >>> from ddfnet.data import digits
        >>> digits.load().test.images.shape
        torch.Size([450, 1, 8, 8])
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    images = torch.from_numpy(source.images).mul(15).to(torch.uint8).unsqueeze(1)  # the values are 0 to 16
    train, test = split(Labelled(images, torch.from_numpy(source.target).long()), test_share=0.25)
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
