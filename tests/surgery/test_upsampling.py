"""Interpolation that becomes DDF-Up: it computes the same at first, whoever called it."""

import copy
import functools
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddfnet.nn import DDFUpsample2d
from ddfnet.surgery import replace_upsample


def error(result, expected):
    return ((result - expected).abs().max() / expected.abs().max()).item()


class Decoder(nn.Module):
    """Two interpolations of its own, and one of a child."""

    def __init__(self, mode="nearest"):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.up = nn.Upsample(scale_factor=3, mode="nearest")
        self.mode = mode

    def forward(self, x, size=None):
        y = F.interpolate(self.conv(x), scale_factor=2, mode=self.mode)
        z = self.up(x)
        return F.interpolate(y, size=size or (4 * x.shape[2], 4 * x.shape[3]), mode=self.mode), z


class Net(nn.Module):
    def __init__(self, mode="nearest"):
        super().__init__()
        self.decoder = Decoder(mode)

    def forward(self, x, size=None):
        return self.decoder(x, size)


class TestStart:
    @pytest.mark.parametrize("combine", ["mul", "add"])
    @pytest.mark.parametrize("scale", [2, 3, (1, 4)], ids=str)
    @pytest.mark.parametrize("mode", ["nearest", "bilinear"])
    def test_the_layer_begins_as_the_interpolation_and_learns(self, mode, scale, combine):
        padding = "replicate" if mode == "bilinear" else "zeros"
        layer = DDFUpsample2d(
            4, scale, norm="none", heads=2, combine=combine, init=mode, padding_mode=padding, reduction=2.0
        )
        x = torch.randn(2, 4, 7, 5)
        result = layer(x)
        expected = F.interpolate(x, scale_factor=layer.scale_factor, mode=mode)
        assert error(result, expected) <= 1e-5
        result.square().sum().backward()
        for branch in (layer.spatial.conv, layer.channel.expand):
            assert branch.weight.grad.abs().max() > 0

    def test_a_larger_kernel_and_a_guide(self):
        layer = DDFUpsample2d(
            2, 2, kernel_size=5, norm="none", init="bilinear", padding_mode="replicate", guide_channels=3
        )
        x, guide = torch.randn(1, 2, 6, 6), torch.rand(1, 3, 12, 12)
        assert error(layer(x, guide), F.interpolate(x, scale_factor=2, mode="bilinear")) <= 1e-5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"init": "cubic", "norm": "none"}, "init must be 'nearest', 'bilinear' or None, got 'cubic'"),
            ({"init": "nearest"}, "init='nearest' needs norm='none' or 'softmax', .* got 'filter'"),
            ({"init": "bilinear", "norm": "none"}, "needs a kernel of 3 taps or more and padding_mode='replicate'"),
            (
                {"init": "bilinear", "norm": "none", "kernel_size": 1, "padding_mode": "replicate"},
                "needs a kernel of 3 taps or more",
            ),
            ({"padding_mode": "reflect"}, "padding_mode must be 'zeros' or 'replicate', got 'reflect'"),
        ],
        ids=str,
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            DDFUpsample2d(4, **options)

    def test_replicated_borders_are_the_borders_of_a_larger_map(self):
        layer, x = DDFUpsample2d(2, padding_mode="replicate", norm="none"), torch.full((1, 2, 4, 4), 3.0)
        with torch.no_grad():
            layer.spatial.conv.weight.zero_()
            layer.channel.expand.weight.zero_()
        result = layer(x)
        assert torch.equal(result[:, :, ::2, ::2], result[:, :, :1, :1].expand(1, 2, 4, 4)), "as bright at the border"


class TestModels:
    @pytest.mark.parametrize("mode", ["nearest", "bilinear"])
    def test_calls_of_forward_passes_and_of_children(self, mode):
        model, x = Net(mode), torch.randn(2, 3, 6, 5)
        expected, state = model(x), set(model.state_dict())
        report = replace_upsample(model, x)
        assert {change.name: change.begins for change in report.changes} == {
            "decoder": "identical",
            "decoder.up": "identical",
        }
        after = "Decoder with DDFUpsample2d 3x3 4 by 2x2, DDFUpsample2d 3x3 4 by 2x2"
        assert report.changes[0].after == after and report.changes[0].before == "Decoder"
        results = model(x)
        assert max(map(error, results, expected)) <= 1e-5
        assert isinstance(model.decoder.up, DDFUpsample2d) and model.decoder.up.scale_factor == (3, 3)
        assert [up.scale_factor for up in model.decoder.ddf_upsample] == [(2, 2)] * 2
        assert state < set(model.state_dict())
        sum(result.square().sum() for result in results).backward()
        assert all(p.grad is not None for p in model.parameters())
        with torch.no_grad():
            model.decoder.ddf_upsample[0].channel.expand.bias.mul_(2)
        assert error(model(x)[0], expected[0]) > 0.1, "it is served by the layer"
        report.undo()
        assert set(model.state_dict()) == state and torch.equal(model(x)[0], expected[0])

    def test_maps_of_odd_size_are_cut(self):
        model, x = Net(), torch.randn(1, 3, 6, 5)
        expected = model(x, (23, 19))
        replace_upsample(model, (x, (23, 19)))
        assert error(model(x, (23, 19))[0], expected[0]) <= 1e-5
        with pytest.raises(ValueError, match=r"by 2x2 makes \(24, 20\) of \(12, 10\), and \(30, 30\) is asked for"):
            model(x, (30, 30))

    def test_a_copy_is_a_model_of_its_own(self):
        model, x = Net(), torch.randn(1, 3, 6, 5)
        replace_upsample(model, x)
        other = copy.deepcopy(model)
        other.load_state_dict(model.state_dict())
        assert isinstance(other.decoder, Decoder)
        assert torch.equal(other(x)[0], model(x)[0])
        assert other.decoder.ddf_upsample[0] is not model.decoder.ddf_upsample[0]

    def test_a_pickle_and_a_saved_model(self):
        model, x = Net(), torch.randn(1, 3, 6, 5)
        replace_upsample(model, x)
        stream = io.BytesIO()
        torch.save(model, stream)
        stream.seek(0)
        for other in (pickle.loads(pickle.dumps(model)), torch.load(stream, weights_only=False)):
            assert type(other.decoder) is type(model.decoder)
            assert torch.equal(other(x)[0], model(x)[0])
            assert other.decoder.ddf_upsample[0] is not model.decoder.ddf_upsample[0]

    def test_it_compiles_and_exports(self):
        model, x = Net().eval(), torch.randn(1, 3, 6, 6)
        replace_upsample(model, x)
        expected = model(x)[0]
        exported = torch.export.export(model, (x,)).module()
        assert error(exported(x)[0], expected) <= 1e-5
        assert error(torch.compile(model, backend="eager", fullgraph=True)(x)[0], expected) <= 1e-5

    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.02), (torch.float16, 0.002)]
    )
    def test_the_dtype_is_the_models(self, dtype, tolerance):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear")).to(dtype)
        x = torch.randn(1, 3, 9, 8, dtype=dtype)
        expected = model(x)
        replace_upsample(model, x)
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert error(model(x).double(), expected.double()) <= tolerance

    def test_what_is_chosen_by_name(self):
        model, x = Net(), torch.randn(1, 3, 6, 5)
        report = replace_upsample(model, x, "*.up", kernel_size=5)
        assert [change.name for change in report.changes] == ["decoder.up"]
        assert model.decoder.up.kernel_size == (5, 5) and type(model.decoder) is Decoder

    def test_modes_and_hooks_of_the_model_stay(self):
        model, x = Net().train(), torch.randn(1, 3, 6, 5)
        model.decoder.eval()
        seen = []
        model.decoder.register_forward_hook(lambda *_: seen.append(1))
        replace_upsample(model, x)
        assert model.training and not model.decoder.training and not model.decoder.ddf_upsample.training
        seen.clear()
        model(x)
        assert seen == [1]
        assert model.decoder.register_forward_hook(lambda *_: None)

    def test_an_upsample_layer_keeps_its_hooks(self):
        model, x, seen = nn.Sequential(nn.Upsample(scale_factor=2)), torch.randn(1, 3, 6, 5), []
        model[0].register_forward_hook(lambda *_: seen.append(1))
        expected = model(x)
        replace_upsample(model, x)
        seen.clear()
        assert error(model(x), expected) <= 1e-5 and seen == [1]
        assert len(model[0].ddf_upsample) == 1


def up(x, **options):
    return F.interpolate(x, **(options or {"scale_factor": 2}))


class Iterates(nn.Sequential):
    def forward(self, x):
        for child in self:
            x = child(x)
        return up(x, scale_factor=2, mode="bilinear")


class CallsItsSuper(nn.Sequential):
    def forward(self, x):
        return up(super().forward(x))


class Indexes(nn.Sequential):
    def forward(self, x):
        assert len(self) == 2
        return up(self[-1](self[0](x)) + sum(layer(x).mean() for layer in self[:1]))


class Listed(nn.ModuleList):
    def forward(self, x):
        return up(functools.reduce(lambda x, layer: layer(x), self, x))


class WritesToItsResult(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers, self.inner = nn.Sequential(*layers), Inner()

    def forward(self, x):
        return self.inner(self.layers(x)).relu_()


class Inner(nn.Module):
    def forward(self, x):
        return up(x)


class Draws(Inner):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return up(self.layers(x) + torch.randn_like(x[:, :1]))


class WritesToItsArgument(Draws):
    def forward(self, x):
        return up(self.layers(x.sub_(1)))


class Chooses(Inner):
    """Calls one of its methods, which it keeps as an attribute."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.method = self.twice

    def twice(self, x):
        return up(self.layers(x)) * (2 if self.training else 1)

    def forward(self, x):
        return self.method(x)


class Larger(nn.Upsample):
    def __init__(self, *layers):
        super().__init__(scale_factor=2)
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return super().forward(self.layers(x)) + 1


class Children(nn.Module):
    """Runs all of its children, under whatever name they are there."""

    def __init__(self, *layers):
        super().__init__()
        self.one, self.two = layers

    def each(self):
        return self.children()

    def forward(self, x):
        for child in self.each():
            x = child(x)
        return up(x)


class Modules(Children):
    def each(self):
        return list(self._modules.values())


class Counts(Children):
    def forward(self, x):
        return up(self.two(self.one(x))) * len(list(self.children()))


class Named(nn.ModuleDict):
    def __init__(self, *layers):
        super().__init__({"one": layers[0], "two": layers[1]})

    def forward(self, x):
        return up(functools.reduce(lambda x, layer: layer(x), self.values(), x))


class TestModulesThatRunTheirOwnChildren:
    @staticmethod
    def build(kind):
        layers = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        return nn.Sequential(kind([*layers]) if kind is Listed else kind(*layers), nn.Conv2d(3, 2, 1)).eval()

    @pytest.mark.parametrize(
        "kind",
        [Iterates, CallsItsSuper, Indexes, Listed, WritesToItsResult, WritesToItsArgument, Draws, Chooses, Larger],
    )
    def test_the_result_is_right(self, kind):
        model, x = self.build(kind), torch.randn(2, 3, 6, 5)
        seeded, given = torch.random.get_rng_state(), x.clone()
        expected = model(x.clone())
        torch.random.set_rng_state(seeded)
        [change] = replace_upsample(model, x).changes
        assert torch.equal(x, given)
        assert change.begins == "identical" and "DDFUpsample2d 3x3 3 by 2x2" in change.after
        torch.random.set_rng_state(seeded)
        assert error(model(x.clone()), expected) <= 1e-5
        [layer] = [layer for layer in model.modules() if isinstance(layer, DDFUpsample2d)]
        with torch.no_grad():
            layer.channel.expand.bias.mul_(2)
        torch.random.set_rng_state(seeded)
        assert error(model(x), expected) > 0.1, "it is served by the layer"
        assert {f"{name}.weight" for name in ("0.0", "0.1")} <= set(model.state_dict()) or kind not in (
            Iterates,
            Listed,
        )

    @pytest.mark.parametrize("kind", [Iterates, Listed])
    def test_it_compiles_exports_and_copies(self, kind):
        model, x = self.build(kind), torch.randn(2, 3, 6, 6)
        replace_upsample(model, x)
        expected = model(x)
        assert error(copy.deepcopy(model)(x), expected) == 0
        assert error(pickle.loads(pickle.dumps(model))(x), expected) == 0
        assert error(torch.compile(model, backend="eager", fullgraph=True)(x), expected) <= 1e-5
        assert error(torch.export.export(model, (x,)).module()(x), expected) <= 1e-5

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            (Children, "its forward pass does not run with DDF-Up among its children: .*ModuleList"),
            (Modules, "its forward pass does not run with DDF-Up among its children: .*ModuleList"),
            (Named, "its forward pass does not run with DDF-Up among its children: .*ModuleList"),
            (Counts, "its results are others with DDF-Up among its children"),
        ],
    )
    def test_or_it_is_refused(self, kind, reason):
        model, x = self.build(kind).train(), torch.randn(2, 3, 6, 5)
        model.append(nn.Upsample(scale_factor=3))
        modules, expected = dict(model.named_modules()), model(x)
        with pytest.raises(ValueError, match=f"^0 cannot be replaced: {reason}.*; leave it out of where$"):
            replace_upsample(model, x, "*")
        with pytest.raises(ValueError, match=f"; 0 cannot be replaced: {reason}"):
            replace_upsample(model[:2], x)
        assert dict(model.named_modules()) == modules and torch.equal(model(x), expected)
        assert all(module.training and not module._forward_hooks for module in model.modules())
        report = replace_upsample(model, x)
        assert [change.name for change in report.changes] == ["2"] and report.skipped[0][0] == "0"
        assert error(model(x), expected) <= 1e-5

    def test_what_is_around_a_refused_module_stays_too(self):
        class Around(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return up(self.inner(x))

        model, x = nn.Sequential(Around(self.build(Children))), torch.randn(2, 3, 6, 5)
        with pytest.raises(ValueError, match="0 cannot be replaced: Children inside of it interpolates too, and stays"):
            replace_upsample(model, x)

    def test_a_model_that_runs_the_children_of_others_is_refused(self):
        class Reaches(nn.Module):
            def __init__(self):
                super().__init__()
                self.decoder = Decoder()

            def forward(self, x):
                for child in self.decoder.children():
                    child(x)
                return self.decoder(x)

        model, x = Reaches(), torch.randn(1, 3, 6, 5)
        with pytest.raises(ValueError, match="^the model does not run with DDF-Up in the place of its interpolation: "):
            replace_upsample(model, x)
        assert type(model.decoder) is Decoder and model(x)


class TestGlobalPooling:
    """Its one pixel is spread over the image: by a factor that the size of the image is."""

    class Pooling(nn.Sequential):
        def __init__(self, *layers, **options):
            super().__init__(nn.AdaptiveAvgPool2d(1), *layers)
            self.options = options

        def forward(self, x):
            return x + up(super().forward(x), **(self.options or {"size": x.shape[2:], "mode": "bilinear"}))

    @pytest.mark.parametrize("options", [{}, {"size": 6}, {"scale_factor": 6}], ids=str)
    def test_its_branch_stays(self, options):
        pooling = self.Pooling(nn.Conv2d(3, 3, 1), **options)
        model, x = nn.Sequential(pooling, nn.Upsample(scale_factor=2)), torch.randn(1, 3, 6, 6)
        expected = model(x)
        report = replace_upsample(model, x)
        assert [change.name for change in report.changes] == ["1"]
        reason = "it spreads a pixel, (1, 1) to (6, 6), as global pooling does; if it does not, give a larger example"
        assert report.skipped == (("0", reason),)
        assert error(model(x), expected) <= 1e-5
        with pytest.raises(ValueError, match="^0 cannot be replaced: it spreads a pixel"):
            replace_upsample(model, x, "0")

    def test_a_row_that_is_spread_stays(self):
        class Strip(nn.Module):
            def forward(self, x):
                return up(x.mean(2, keepdim=True), size=x.shape[2:])

        with pytest.raises(ValueError, match=r"it spreads a pixel, \(1, 6\) to \(6, 6\)"):
            replace_upsample(nn.Sequential(Strip()), torch.randn(1, 3, 6, 6))

    def test_the_smallest_map_of_a_decoder_is_enlarged(self):
        model, x = nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)), torch.randn(1, 3, 1, 1)
        expected = model(x)
        assert len(replace_upsample(model, x).changes) == 2
        assert error(model(x), expected) <= 1e-5


class Wrong(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x):
        return F.interpolate(x, **self.options)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"scale_factor": 2, "mode": "bicubic"}, "mode='bicubic' is neither nearest nor bilinear"),
            ({"scale_factor": 2, "mode": "bilinear", "align_corners": True}, "align_corners=True"),
            ({"scale_factor": 0.5}, r"\(6, 6\) to \(3, 3\) is no enlargement by a whole factor"),
            ({"size": (9, 9), "mode": "bilinear"}, r"\(6, 6\) to \(9, 9\) is no enlargement"),
            ({"size": (12, 16)}, r"\(6, 6\) to \(12, 16\) is no enlargement"),
            ({"scale_factor": 2.9}, r"\(6, 6\) to \(17, 17\) is no enlargement"),
        ],
        ids=str,
    )
    def test_other_interpolation(self, options, reason):
        model, x = nn.Sequential(Wrong(**options), nn.Upsample(scale_factor=2)), torch.randn(1, 3, 6, 6)
        modules = dict(model.named_modules())
        with pytest.raises(ValueError, match=f"^0 cannot be replaced: .*{reason}.*; leave it out of where$"):
            replace_upsample(model, x, "*")
        assert dict(model.named_modules()) == modules
        report = replace_upsample(model, x)
        assert [change.name for change in report.changes] == ["1"]
        assert report.skipped[0][0] == "0" and "0 stays: " in str(report)

    def test_nothing_to_replace(self):
        x = torch.randn(1, 3, 6, 6)
        with pytest.raises(ValueError, match=r"got 'x\*'; decoder does; decoder.up does$"):
            replace_upsample(Net(), x, "x*")
        with pytest.raises(ValueError, match="the model's own forward pass does, and is replaced where"):
            replace_upsample(Wrong(scale_factor=2), x)
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
            replace_upsample(None, x)

    def test_a_module_whose_forward_was_replaced(self):
        model, x = Net(), torch.randn(1, 3, 6, 6)
        model.decoder.up.forward = lambda x: F.interpolate(x, scale_factor=3) + 1
        expected = model(x)
        reason = "its forward was replaced on the instance, and would not be called"
        with pytest.raises(ValueError, match=f"^decoder.up cannot be replaced: {reason}"):
            replace_upsample(model, x, "decoder.up")
        model.decoder.up = nn.Identity()
        model.decoder.forward = functools.partial(Decoder.forward, model.decoder)
        with pytest.raises(ValueError, match=f"decoder cannot be replaced: {reason}"):
            replace_upsample(model, x)
        assert type(model.decoder) is Decoder and len(expected) == 2

    def test_calls_that_the_example_had_not(self):
        class Repeats(nn.Module):
            def forward(self, x, factor=2, times=1):
                for _ in range(times):
                    x = up(x, scale_factor=factor)
                return x

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = Repeats()

            def forward(self, *arguments):
                return self.inner(*arguments)

        model, x = Around(), torch.randn(1, 3, 6, 6)
        replace_upsample(model, (x, 2.0))
        assert error(model(x), up(x)) <= 1e-5
        with pytest.raises(ValueError, match=r"by 2x2 makes \(12, 12\) of \(6, 6\), and \(3, 3\) is asked for"):
            model(x, 3)
        with pytest.raises(ValueError, match="Repeats interpolates more often than the 1 times of the example"):
            model(x, 2, 2)

    def test_a_module_without_the_one_inside_of_it(self):
        model, x = Net(), torch.randn(1, 3, 6, 6)
        with pytest.raises(ValueError, match=r"^decoder cannot be replaced: Upsample inside of it interpolates too"):
            replace_upsample(model, x, "decoder")
        model.decoder.up = nn.Upsample(scale_factor=2, mode="bicubic")
        with pytest.raises(
            ValueError, match=r"decoder cannot be replaced: Upsample inside of it interpolates too, and"
        ):
            replace_upsample(model, x)
        assert type(model.decoder) is Decoder

    def test_a_module_whose_calls_differ_from_pass_to_pass(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.up = Wrong(scale_factor=2)

            def forward(self, x):
                return self.up(self.up(x)[:, :2])

        with pytest.raises(ValueError, match="up cannot be replaced: its calls differ from pass to pass"):
            replace_upsample(Two(), torch.randn(1, 3, 6, 6))
