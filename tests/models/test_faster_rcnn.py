"""Detector beside torchvision's, on several backbones, with each upsampler, and its errors."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("timm")

import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn as torchvision_resnet50_fpn
from torchvision.ops.misc import FrozenBatchNorm2d

import ddfnet.models
from ddfnet.models.faster_rcnn import Detector, coco_classes, fasterrcnn_resnet50_fpn
from ddfnet.models.upsamplers import UPSAMPLERS
from tests.meta_device import check_reset_statistics

SMALL: dict[str, Any] = {"width": 16, "head_width": 32, "min_size": 64, "max_size": 128}


def small(upsampler: str = "ddf", backbone: str = "mobilenetv3_small_050", **options: Any) -> Detector:
    torch.manual_seed(0)
    return Detector(["red", "blue"], backbone, upsampler, **{**SMALL, **options})


def targets(count: int) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.tensor([[5.0, 6, 30, 40]]), "labels": torch.tensor([2])} for _ in range(count)]


def test_with_nearest_its_weights_and_results_are_torchvisions() -> None:
    theirs = torchvision_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96)
    ours = fasterrcnn_resnet50_fpn("nearest", classes=["red", "blue"], min_size=64, max_size=96)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    ours.load_state_dict(theirs.state_dict())
    images = [torch.rand(3, 64, 70)]
    with torch.inference_mode():
        [result], [expected] = ours.eval()(images), theirs.eval()(images)
    assert len(expected["boxes"]) > 0
    for name in ("boxes", "labels", "scores"):
        torch.testing.assert_close(result[name], expected[name])


def test_the_paper_s_network_has_coco_s_classes() -> None:
    assert len(coco_classes()) == 80 and coco_classes()[0] == "person" and coco_classes()[-1] == "toothbrush"
    assert ddfnet.models.fasterrcnn_resnet50_fpn is fasterrcnn_resnet50_fpn
    assert ddfnet.models.Detector is Detector


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_it_trains_and_finds(upsampler: str) -> None:
    detector, images = small(upsampler), [torch.rand(3, 48, 64), torch.rand(3, 50, 40)]
    losses = detector(images, targets(2))
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    learning = [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    assert not learning, "every parameter learns"
    with torch.inference_mode():
        found = detector.eval()(images)
    for image, each in zip(images, found, strict=True):
        assert each["boxes"].shape == (len(each["labels"]), 4) and each["scores"].shape == each["labels"].shape
        assert (each["boxes"] <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()
        assert set(each["labels"].tolist()) <= {1, 2}


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnet10t", {"backbone_options": {"channels": [8, 8, 16, 16]}}),
        ("ddf_mul_resnet18", {"backbone_options": {"block_args": {"norm": "sigmoid"}}}),
        ("efficientnet_lite0", {}),
        ("regnety_002", {"frozen_stages": 2}),
    ],
)
def test_any_backbone(backbone: str, options: dict[str, Any]) -> None:
    detector = small(backbone=backbone, **options)
    levels = detector.backbone(torch.rand(1, 3, 64, 96))
    sizes = [tuple(level.shape[1:]) for level in levels.values()]
    assert sizes == [(16, 16, 24), (16, 8, 12), (16, 4, 6), (16, 2, 3), (16, 1, 2)]


def test_frozen_stages_and_norms() -> None:
    detector = small(backbone="resnet18", frozen_stages=1, norm="frozen")
    body = detector.backbone.body
    still = {name.split(".")[0] for name, parameter in body.named_parameters() if not parameter.requires_grad}
    learning = {name.split(".")[0] for name, parameter in body.named_parameters() if parameter.requires_grad}
    assert still == {"conv1", "layer1"} and learning == {"layer2", "layer3", "layer4"}
    assert any(isinstance(module, FrozenBatchNorm2d) for module in body.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    flattened = small(frozen_stages=2).backbone.body
    stages = {name: parameter.requires_grad for name, parameter in flattened.named_parameters()}
    assert not stages["conv_stem.weight"] and not any(v for name, v in stages.items() if name.startswith("blocks.1."))
    assert all(v for name, v in stages.items() if name.startswith("blocks.2."))


def test_weights_of_a_file(tmp_path: Any) -> None:
    import timm

    network = timm.create_model("mobilenetv3_small_050")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    detector = small(pretrained=str(tmp_path / "weights.pth"))
    assert torch.equal(detector.backbone.body.conv_stem.weight, network.conv_stem.weight)
    assert detector.init_args["pretrained"] is False


def test_a_file_of_weights_that_is_none_is_one_line(tmp_path: Any) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(ValueError, match="weights.pth: no such file"):
        small(pretrained=str(file))
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(ValueError) as raised:
        small(pretrained=str(file))
    said = "it must hold weights alone, and code in it is not run; save its state dict again, with safetensors.torch."
    assert str(raised.value).startswith(f"{file}: {said}")


def test_anchors_grow_with_their_level() -> None:
    assert small(anchor_scale=4).rpn.anchor_generator.sizes == ((16,), (32,), (64,), (128,), (256,))
    assert small().rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,)), "torchvision's"


def test_its_init_args_build_it_again() -> None:
    detector = small("carafe", anchor_scale=5.0, rcnn={"box_batch_size_per_image": 8}, min_size=[48, 64])
    other = Detector(**detector.init_args)
    other.load_state_dict(detector.state_dict())
    assert other.init_args == detector.init_args
    assert other.transform.min_size == (48, 64) and other.roi_heads.fg_bg_sampler.batch_size_per_image == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "classes must be one name or more, each of them once, got []"),
        ({"classes": ["a", "a"]}, "classes must be one name or more, each of them once, got ['a', 'a']"),
        ({"backbone": "resnet18000"}, "backbone must be the name of a network of timm (timm.list_models()), got 'resn"),
        ({"backbone": "vit_tiny_patch16_224"}, "backbone must have maps of 1/4, 1/8, 1/16 and 1/32 of the image, "),
        (
            {"upsampler": "magic"},
            "upsampler must be one of 'nearest', 'bilinear', 'deconv', 'pixelshuffle', 'carafe', ",
        ),
        ({"width": 0}, "width must be above 0, got 0"),
        ({"anchor_scale": -1.0}, "anchor_scale must be above 0, got -1.0"),
        ({"min_size": 200}, "min_size must be from 1 to max_size, 128, got 200"),
        ({"frozen_stages": 5}, "frozen_stages must be from 0 to 4, got 5"),
        ({"norm": "layer"}, "norm must be 'batch' or 'frozen', got 'layer'"),
        ({"rcnn": {"box_hed": 3}}, "rcnn must have names among image_mean, image_std, rpn_pre_nms_top_n_train, "),
        ({"rcnn": {"rpn_head": 3}}, "rcnn must have names among "),
    ],
)
def test_a_wrong_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Detector(**{"classes": ["a"], "backbone": "mobilenetv3_small_050", **SMALL, **options})
    assert str(caught.value).startswith(message)


def test_memory_from_the_meta_device_gets_the_constructors_values() -> None:
    options: dict[str, Any] = {"layers": (1, 1, 1, 1), "block_args": {"zero_init": True}}
    check_reset_statistics(lambda: small("carafe", "ddf_mul_resnet18", backbone_options=options))
