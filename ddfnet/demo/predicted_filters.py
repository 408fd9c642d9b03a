"""Filters that the first and the last DDF layer of a trained network predict for photographs, as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from ddfnet.data.classification.splits import Splits
from ddfnet.data.depth import photographs
from ddfnet.demo import filters, images

_POINTS = 4  # marked on each photograph
_STRIP = 16  # channels side by side


def shown(network: nn.Module, splits: Splits, size: int) -> dict[str, Any]:
    """Return the contents of the page: photographs of ``size`` x ``size`` pixels and their predicted filters."""
    found = photographs.load(size)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in splits.normalisation())
    seen = [_as_seen(photo.image.float() / 255, splits.channels) for photo in found]
    recorded = [filters.record(network, (image - mean) / deviation) for image in seen]
    firsts, lasts = [own[0] for own in recorded], [own[-1] for own in recorded]
    first_colours, last_colours = (filters.Components.fit([f.spatial for f in own]) for own in (firsts, lasts))
    departures = [first_colours.departure(own.spatial) for own in firsts]
    distances = torch.cat([d.flatten() for d in departures]).sort().values
    furthest = distances[round(0.99 * (len(distances) - 1))].item()

    all_channels = torch.stack([own.channel for own in firsts])  # (photographs, C, kH, kW)
    channel = int(all_channels.flatten(2).norm(dim=2).mean(0).argmax())
    sections = []
    for photo, image, first, last, departure in zip(found, seen, firsts, lasts, departures, strict=True):
        points = filters.typical_points(first.spatial, _POINTS)
        scale = size / first.spatial.shape[1]
        spatial = [first.spatial[:, y, x].reshape(first.channel.shape[1:]) for y, x in points]
        applied = [taps * first.channel[channel] for taps in spatial]
        own_full, full = first.channel[channel].abs().max().item(), max(taps.abs().max().item() for taps in spatial)
        applied_full = max(taps.abs().max().item() for taps in applied)
        sections.append(
            {
                "credit": photo.credit,
                "photograph": images.photograph(image.permute(1, 2, 0).squeeze(-1), points, scale),
                "first": images.colours(first_colours.colours(first.spatial)),
                "last": images.colours(last_colours.colours(last.spatial)),
                "departure": images.heat(departure, furthest),
                "channel": _kernel(first.channel[channel], own_full),
                "spatial": [_kernel(taps, full) for taps in spatial],
                "applied": [_kernel(taps, applied_full) for taps in applied],
            }
        )
    strips = _strips([photo.name for photo in found], [own.channel for own in firsts])
    return {
        "sections": sections,
        "strips": strips,
        "channel": channel,
        "channel_change": (all_channels.std(0, correction=0).norm() / all_channels.mean(0).norm()).item(),
        "channels": len(firsts[0].channel),
        "photograph_size": size,
        "first_size": firsts[0].spatial.shape[1],
        "last_size": lasts[0].spatial.shape[1],
        "layers": len(recorded[0]),
        "first_share": first_colours.share,
        "last_share": last_colours.share,
        "furthest": furthest,
        "grey": splits.channels == 1,
    }


def _strips(names: Sequence[str], channel_filters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Draw the channel filters (C, kH, kW) of each photograph, sixteen channels at a time, all on one scale."""
    full = max(filters.abs().max().item() for filters in channel_filters)
    parts = zip(*(filters.split(_STRIP) for filters in channel_filters), strict=True)
    return [
        {
            "first": _STRIP * number,
            "last": _STRIP * number + len(part[0]) - 1,
            "rows": [
                {"name": name, "image": images.kernels(filters, full)}
                for name, filters in zip(names, part, strict=True)
            ],
        }
        for number, part in enumerate(parts)
    ]


def _as_seen(image: Tensor, channels: int) -> Tensor:
    """Convert a colour image to the channels of the network's input."""
    return functional.rgb_to_grayscale(image) if channels == 1 else image


def _kernel(taps: Tensor, full: float) -> dict[str, str]:
    numbers = "; ".join(" ".join(f"{value:.2f}" for value in row) for row in taps.tolist())
    return {"image": images.kernel(taps, full), "numbers": numbers}
