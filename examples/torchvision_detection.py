"""Train torchvision's Faster R-CNN, its feature pyramid with DDF-Up, to find digits that lie in a photograph."""

import sys

import torch
from skimage import data
from sklearn.datasets import load_digits
from torchvision.ops import box_iou

from ddfnet.models import Detector

SHORT = "--short" in sys.argv
SIDE, SIZE = 24, 96  # pixels, of a digit and of a picture

torch.manual_seed(0)
digits = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
digits = torch.nn.functional.interpolate(digits, (SIDE, SIDE), mode="bilinear")
background = torch.tensor(data.astronaut(), dtype=torch.float32).permute(2, 0, 1) / 255 / 2


def scene() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A piece of the photograph, (3, SIZE, SIZE) from 0 to 1, with a digit in its upper and one in its lower half."""
    y, x = torch.randint(background.shape[1] - SIZE, (2,)).tolist()
    picture = background[:, y : y + SIZE, x : x + SIZE].clone()
    boxes = []
    for half in (0, SIZE // 2):
        top, left = half + int(torch.randint(SIZE // 2 - SIDE, ())), int(torch.randint(SIZE - SIDE, ()))
        place = picture[:, top : top + SIDE, left : left + SIDE]
        place.copy_(torch.maximum(place, digits[torch.randint(len(digits), ())]))
        boxes.append([left, top, left + SIDE, top + SIDE])
    return picture, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.ones(2, dtype=torch.long)}


detector = Detector(["digit"], "resnet18", "ddf", width=64, head_width=128, min_size=SIZE, max_size=SIZE)
optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-4)
steps = 3 if SHORT else 60
for step in range(steps):
    pictures, targets = zip(*(scene() for _ in range(4)), strict=True)
    losses = detector.train()(list(pictures), list(targets))
    loss = sum(losses.values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % max(1, steps // 4) == 0:
        print(f"step {step}: " + ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items()))

with torch.inference_mode():
    picture, target = scene()
    [found] = detector.eval()([picture])
best = box_iou(target["boxes"], found["boxes"]).amax(1) if len(found["boxes"]) else torch.zeros(2)
print("overlap of each digit with the best box: " + ", ".join(f"{overlap:.2f}" for overlap in best.tolist()))
