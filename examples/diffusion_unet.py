"""Training of a small diffusion model on scikit-learn's digits; its U-Net upsamples with DDF-Up.

The model is that of Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020: it learns to predict the noise
that was added to an image, and generates images by removing noise step by step.
"""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ddfnet.nn import DDFUpsample2d

SHORT = "--short" in sys.argv
STEPS = 10 if SHORT else 100  # steps of the noise schedule


def block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(8, out), nn.SiLU())


class UNet(nn.Module):
    """U-Net of two levels; DDF-Up predicts its filters from the encoder's map of the same resolution."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.time = nn.Embedding(STEPS, width)
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.down = nn.ModuleList([block(width, width, stride=2) for _ in range(2)])
        self.up = nn.ModuleList([DDFUpsample2d(width, 2, guide_channels=width, guide_at="output") for _ in range(2)])
        self.merge = nn.ModuleList([block(2 * width, width) for _ in range(2)])

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        time = self.time(step)[:, :, None, None]
        maps = [self.first(x) + time]
        for down in self.down:
            maps.append(down(maps[-1]) + time)
        y = maps.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            finer = maps.pop()
            y = merge(torch.cat([up(y, finer), finer], 1)) + time
        return self.last(y)


torch.manual_seed(0)
digits = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8), from -1 to 1
beta = torch.linspace(1e-3, 0.2, STEPS)
signal = (1 - beta).cumprod(0)  # share of the image's variance that is left after each step
model = UNet()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(1 if SHORT else 30):
    for batch in torch.randperm(256 if SHORT else len(digits)).split(128):
        step, noise = torch.randint(STEPS, (len(batch),)), torch.randn(len(batch), 1, 8, 8)
        share = signal[step][:, None, None, None]
        loss = F.mse_loss(model(share.sqrt() * digits[batch] + (1 - share).sqrt() * noise, step), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 0:
        print(f"epoch {epoch}: noise error {loss.item():.3f}")

with torch.inference_mode():
    images = torch.randn(4, 1, 8, 8)
    for step in reversed(range(STEPS)):
        noise = model(images, torch.full((4,), step))
        images = (images - beta[step] / (1 - signal[step]).sqrt() * noise) / (1 - beta[step]).sqrt()
        images += beta[step].sqrt() * torch.randn_like(images) * (step > 0)
shades = ((images.clamp(-1, 0.99) + 1) * 2).int()
for row in range(8):
    print("  ".join("".join(" .:#"[shade] for shade in image[0, row]) for image in shades))
