"""Training of torchvision's Faster R-CNN, with DDF-Up in its feature pyramid, to find digits in a photograph."""

import sys

import torch
from skimage import data
from sklearn.datasets import load_digits
from torchvision.ops import box_iou

from ddfnet.models import Detector

SHORT = "--short" in sys.argv
SIDE, SIZE = 24, 96  # height and width of a digit and of an image in pixels

torch.manual_seed(0)
digits = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
digits = torch.nn.functional.interpolate(digits, (SIDE, SIDE), mode="bilinear")
background = torch.tensor(data.astronaut(), dtype=torch.float32).permute(2, 0, 1) / 255 / 2


def scene() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compose an image (3, SIZE, SIZE), from 0 to 1: a crop of the photograph with a digit in each of its halves."""
    y, x = torch.randint(background.shape[1] - SIZE, (2,)).tolist()
    image = background[:, y : y + SIZE, x : x + SIZE].clone()
    boxes = []
    for half in (0, SIZE // 2):
        top, left = half + int(torch.randint(SIZE // 2 - SIDE, ())), int(torch.randint(SIZE - SIDE, ()))
        window = image[:, top : top + SIDE, left : left + SIDE]
        window.copy_(torch.maximum(window, digits[torch.randint(len(digits), ())]))
        boxes.append([left, top, left + SIDE, top + SIDE])
    return image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.ones(2, dtype=torch.long)}


detector = Detector(["digit"], "resnet18", "ddf", width=64, head_width=128, min_size=SIZE, max_size=SIZE)
optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-4)
steps = 3 if SHORT else 60
for step in range(steps):
    images, targets = zip(*(scene() for _ in range(4)), strict=True)
    losses = detector.train()(list(images), list(targets))
    loss = sum(losses.values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % max(1, steps // 4) == 0:
        print(f"step {step}: " + ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items()))

with torch.inference_mode():
    image, target = scene()
    [found] = detector.eval()([image])
best = box_iou(target["boxes"], found["boxes"]).amax(1) if len(found["boxes"]) else torch.zeros(2)
print("overlap of each digit with the best box: " + ", ".join(f"{overlap:.2f}" for overlap in best.tolist()))
