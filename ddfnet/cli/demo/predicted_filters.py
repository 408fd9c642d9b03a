"""The filters that the first and the last DDF layer of a trained twin predict for photographs, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ddfnet.cli import filters, pictures
from ddfnet.data.classification.splits import Splits
from ddfnet.data.depth import photographs
from ddfnet.models.twins import TwinNet

_POINTS = 4  # marked on each photograph
_STRIP = 16  # channels side by side


def shown(network: TwinNet, splits: Splits, size: int) -> dict[str, Any]:
    """For the page: the photographs, each ``size`` pixels a side, and what the two layers predict for them."""
    found = photographs.load(size)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in splits.normalisation())
    seen = [_as_seen(photo.image.float() / 255, splits.channels) for photo in found]
    recorded = [filters.record(network, (picture - mean) / deviation) for picture in seen]
    firsts, lasts = [own[0] for own in recorded], [own[-1] for own in recorded]
    first_colours, last_colours = (filters.Components.fit([f.spatial for f in own]) for own in (firsts, lasts))
    departures = [first_colours.departure(own.spatial) for own in firsts]
    distances = torch.cat([d.flatten() for d in departures]).sort().values
    furthest = distances[round(0.99 * (len(distances) - 1))].item()

    all_channels = torch.stack([own.channel for own in firsts])  # (photographs, C, kH, kW)
    channel = int(all_channels.flatten(2).norm(dim=2).mean(0).argmax())
    sections = []
    for photo, picture, first, last, departure in zip(found, seen, firsts, lasts, departures, strict=True):
        points = filters.typical_points(first.spatial, _POINTS)
        scale = size / first.spatial.shape[1]
        spatial = [first.spatial[:, y, x].reshape(first.channel.shape[1:]) for y, x in points]
        applied = [taps * first.channel[channel] for taps in spatial]
        own_full, full = first.channel[channel].abs().max().item(), max(taps.abs().max().item() for taps in spatial)
        applied_full = max(taps.abs().max().item() for taps in applied)
        sections.append(
            {
                "credit": photo.credit,
                "photograph": pictures.photograph(picture.permute(1, 2, 0).squeeze(-1), points, scale),
                "first": pictures.colours(first_colours.colours(first.spatial)),
                "last": pictures.colours(last_colours.colours(last.spatial)),
                "departure": pictures.heat(departure, furthest),
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
    """The channel filters (C, kH, kW) of each photograph, sixteen channels at a time, all on one scale."""
    full = max(filters.abs().max().item() for filters in channel_filters)
    parts = zip(*(filters.split(_STRIP) for filters in channel_filters), strict=True)
    return [
        {
            "first": _STRIP * number,
            "last": _STRIP * number + len(part[0]) - 1,
            "rows": [
                {"name": name, "picture": pictures.kernels(filters, full)}
                for name, filters in zip(names, part, strict=True)
            ],
        }
        for number, part in enumerate(parts)
    ]


def _as_seen(picture: Tensor, channels: int) -> Tensor:
    """A colour picture as a network for this many channels takes it."""
    return functional.rgb_to_grayscale(picture) if channels == 1 else picture


def _kernel(taps: Tensor, full: float) -> dict[str, str]:
    numbers = "; ".join(" ".join(f"{value:.2f}" for value in row) for row in taps.tolist())
    return {"picture": pictures.kernel(taps, full), "numbers": numbers}
