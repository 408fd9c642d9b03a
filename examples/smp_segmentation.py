"""Train a U-Net of segmentation-models-pytorch on a DDF-ResNet, with DDF-Up in its decoder, on photographs' objects.

The photograph is scikit-image's of coins, and the mask is what lies above Otsu's threshold of its smoothed brightness.
"""

import sys

import segmentation_models_pytorch as smp
import torch
from scipy import ndimage
from skimage import data, filters

import ddfnet.models  # noqa: F401  (registers ddf_mul_resnet18 and its like with timm)
from ddfnet.surgery import replace_upsample

SHORT = "--short" in sys.argv

torch.manual_seed(0)
coins = data.coins()[:288, :384]  # (288, 384), uint8
smooth = filters.gaussian(coins, 2)
found = ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth))
photograph = torch.tensor(coins, dtype=torch.float32)[None, None] / 255 - 0.5
mask = torch.tensor(found, dtype=torch.float32)[None, None]


def crop(size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pieces of the photograph's left part and of its mask: the right part is for the test."""
    rows, columns = torch.randint(288 - size, (count,)), torch.randint(288 - size, (count,))
    places = [(slice(y, y + size), slice(x, x + size)) for y, x in zip(rows.tolist(), columns.tolist(), strict=True)]
    return torch.cat([photograph[..., y, x] for y, x in places]), torch.cat([mask[..., y, x] for y, x in places])


model = smp.Unet("tu-ddf_mul_resnet18", encoder_weights=None, in_channels=1, decoder_channels=(64, 32, 32, 16, 16))
report = replace_upsample(model, torch.zeros(1, 1, 64, 64))  # the same results at first; it learns from there
print(f"{len(report.changes)} interpolations of the decoder became DDF-Up")

criterion = smp.losses.DiceLoss("binary")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
steps = 4 if SHORT else 40
for step in range(steps):
    pictures, masks = crop(64 if SHORT else 96, 4)
    loss = criterion(model.train()(pictures), masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % max(1, steps // 4) == 0:
        print(f"step {step}: Dice loss {loss.item():.3f}")

with torch.inference_mode():
    predicted = (model.eval()(photograph[..., 288:]) > 0).long()
scores = smp.metrics.get_stats(predicted, mask[..., 288:].long(), mode="binary")
print(f"IoU on the part that was not trained on: {smp.metrics.iou_score(*scores, reduction='micro'):.2f}")
