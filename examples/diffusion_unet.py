"""Train a small diffusion model whose U-Net enlarges its maps with DDF-Up, on scikit-learn's digits, and draw some.

The model is that of Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020: it learns to tell the noise that
was added to a picture, and draws by taking noise away step by step.
"""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ddfnet.nn import DDFUpsample2d

SHORT = "--short" in sys.argv
STEPS = 10 if SHORT else 100  # of noise


def block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(8, out), nn.SiLU())


class UNet(nn.Module):
    """Down by two twice, and up again with DDF-Up, whose filters are predicted from the map of the way down."""

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
left = (1 - beta).cumprod(0)  # of the picture's variance after each step
model = UNet()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(1 if SHORT else 30):
    for batch in torch.randperm(256 if SHORT else len(digits)).split(128):
        step, noise = torch.randint(STEPS, (len(batch),)), torch.randn(len(batch), 1, 8, 8)
        share = left[step][:, None, None, None]
        loss = F.mse_loss(model(share.sqrt() * digits[batch] + (1 - share).sqrt() * noise, step), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 0:
        print(f"epoch {epoch}: error of the noise {loss.item():.3f}")

with torch.inference_mode():
    drawn = torch.randn(4, 1, 8, 8)
    for step in reversed(range(STEPS)):
        noise = model(drawn, torch.full((4,), step))
        drawn = (drawn - beta[step] / (1 - left[step]).sqrt() * noise) / (1 - beta[step]).sqrt()
        drawn += beta[step].sqrt() * torch.randn_like(drawn) * (step > 0)
shades = ((drawn.clamp(-1, 0.99) + 1) * 2).int()
for row in range(8):
    print("  ".join("".join(" .:#"[shade] for shade in picture[0, row]) for picture in shades))
