"""Training of a DDF-ResNet from timm on scikit-learn's handwritten digits."""

import sys

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from timm.optim import create_optimizer_v2

import ddfnet.models  # noqa: F401  (registers ddf_mul_resnet18 and others with timm)

SHORT = "--short" in sys.argv

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16 - 0.5  # (1797, 1, 8, 8)
labels = torch.tensor(digits.target)
images = F.interpolate(images, scale_factor=4, mode="bilinear")
train, test = slice(0, 256) if SHORT else slice(0, 1500), slice(1500, None)

model = timm.create_model("ddf_mul_resnet18", in_chans=1, num_classes=10, layers=(1, 1, 1, 1))
optimizer = create_optimizer_v2(model, "adamw", lr=4e-3, weight_decay=0.05)
epochs, batches = (2, 4) if SHORT else (6, 24)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=epochs * batches)
for epoch in range(epochs):
    model.train()
    for batch in torch.randperm(len(labels[train])).split(64):
        loss = F.cross_entropy(model(images[train][batch]), labels[train][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"epoch {epoch}: loss {loss.item():.3f}, top-1 accuracy {accuracy:.1%} on the test digits")
