"""Training of a segmentation-models-pytorch U-Net with a DDF-ResNet encoder and DDF-Up in its decoder.

The image is scikit-image's photograph of coins; the mask has the pixels above Otsu's threshold of the smoothed
brightness.
"""

import sys

import segmentation_models_pytorch as smp
import torch
from scipy import ndimage
from skimage import data, filters

import ddfnet.models  # noqa: F401  (registers ddf_mul_resnet18 and others with timm)
from ddfnet.surgery import replace_upsample

SHORT = "--short" in sys.argv

torch.manual_seed(0)
coins = data.coins()[:288, :384]  # (288, 384), uint8
smooth = filters.gaussian(coins, 2)
filled = ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth))
image = torch.tensor(coins, dtype=torch.float32)[None, None] / 255 - 0.5
mask = torch.tensor(filled, dtype=torch.float32)[None, None]


def crop(size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop random windows from the left part of the image and the mask; the right part is for the test."""
    rows, columns = torch.randint(288 - size, (count,)), torch.randint(288 - size, (count,))
    windows = [(slice(y, y + size), slice(x, x + size)) for y, x in zip(rows.tolist(), columns.tolist(), strict=True)]
    return torch.cat([image[..., y, x] for y, x in windows]), torch.cat([mask[..., y, x] for y, x in windows])


model = smp.Unet("tu-ddf_mul_resnet18", encoder_weights=None, in_channels=1, decoder_channels=(64, 32, 32, 16, 16))
report = replace_upsample(model, torch.zeros(1, 1, 64, 64))  # the results are the same before the training
print(f"{len(report.changes)} interpolations of the decoder became DDF-Up")

criterion = smp.losses.DiceLoss("binary")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
steps = 4 if SHORT else 40
for step in range(steps):
    images, masks = crop(64 if SHORT else 96, 4)
    loss = criterion(model.train()(images), masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % max(1, steps // 4) == 0:
        print(f"step {step}: Dice loss {loss.item():.3f}")

with torch.inference_mode():
    predicted = (model.eval()(image[..., 288:]) > 0).long()
scores = smp.metrics.get_stats(predicted, mask[..., 288:].long(), mode="binary")
print(f"IoU on the test part: {smp.metrics.iou_score(*scores, reduction='micro'):.2f}")
