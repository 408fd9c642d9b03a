"""Functions of a user's file as methods: what they are given, and every way of failing."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddfnet.errors import DataError, UserError
from ddfnet.tasks.depth.beside import as_method, load

LOW = torch.arange(6.0).reshape(2, 3)
GUIDE = torch.arange(3 * 8 * 12).reshape(3, 8, 12).to(torch.uint8)


def call(method: Any) -> torch.Tensor:
    result: torch.Tensor = method(LOW.clone(), LOW > 0, GUIDE.clone(), factor=4, offset=1.5)
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour_of_mine.py").write_text("GAIN = 2\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "from neighbour_of_mine import GAIN\n"
        "COUNT = 3\n"
        "with open(__file__ + '.runs', 'a') as runs:\n"
        "    runs.write('.')\n"
        "def repeat(low, guide, factor):\n"
        "    return GAIN * low.repeat(factor, 0).repeat(factor, 1)\n"
        "def zero(low, guide, factor):\n"
        "    return np.zeros(guide.shape[:2], np.uint8)\n"
        "class Kept:\n"
        "    pass\n"
    )
    return file


@pytest.fixture(autouse=True)
def the_import_path_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "neighbour_of_mine", raising=False)


def test_functions_of_a_file(file: Path) -> None:
    names = [f"{file}:repeat", f"{file}:zero"]
    methods = load(names)
    assert list(methods) == names
    assert torch.equal(call(methods[names[0]]), 2 * LOW.repeat_interleave(4, 0).repeat_interleave(4, 1))
    assert call(methods[names[1]]).dtype == torch.float32
    assert Path(f"{file}.runs").read_text() == ".", "a file is run once"


def test_two_files_of_one_name_and_their_own_classes(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text("import numpy as np\ndef zero(low, guide, factor):\n    return np.ones(guide.shape[:2])\n")
    first, second = load([f"{file}:zero", f"{other}:zero"]).values()
    assert (call(first).unique().item(), call(second).unique().item()) == (0, 1)
    own = sys.modules["_beside_0"].Kept()
    assert type(pickle.loads(pickle.dumps(own))) is type(own)


def test_what_a_function_is_given() -> None:
    given: dict[str, Any] = {}

    def function(low, guide, factor, *, valid=None, offset):  # type: ignore[no-untyped-def]
        given.update(locals())
        return np.zeros((8, 12))

    call(as_method(function))
    assert given["low"].dtype == np.float32 and np.array_equal(given["low"], LOW)
    assert given["valid"].dtype == bool and np.array_equal(given["valid"], LOW > 0)
    assert given["guide"].dtype == np.uint8 and np.array_equal(given["guide"], GUIDE.permute(1, 2, 0))
    assert given["guide"].flags["C_CONTIGUOUS"]
    assert (given["factor"], given["offset"]) == (4, 1.5)


def test_a_function_of_which_the_parameters_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opaque:
        __signature__ = "none"  # inspect raises TypeError, as it raises ValueError for some in C

        def __call__(self, low, guide, factor):  # type: ignore[no-untyped-def]
            return np.zeros((8, 12))

    assert call(as_method(Opaque())).shape == (8, 12)


def test_what_a_function_does_to_its_arrays_stays_there() -> None:
    def spoil(low, guide, factor, valid):  # type: ignore[no-untyped-def]
        low[:], guide[:], valid[:] = 7, 7, False
        return np.zeros((8, 12))

    low, valid, guide = LOW.clone(), LOW > 0, GUIDE.clone()
    as_method(spoil)(low, valid, guide, factor=4, offset=1.5)
    assert torch.equal(low, LOW) and torch.equal(valid, LOW > 0) and torch.equal(guide, GUIDE)


def test_the_result_is_the_functions_own_no_more() -> None:
    kept = np.ones((8, 12), np.float32)
    result = call(as_method(lambda low, guide, factor: kept))
    kept[:] = 5
    assert (result == 1).all()


def test_a_function_may_train() -> None:
    def train(low, guide, factor):  # type: ignore[no-untyped-def]
        weight = torch.ones(8, 12, requires_grad=True)
        (weight.square().sum()).backward()
        assert weight.grad is not None
        return weight.grad.numpy()

    with torch.inference_mode():
        assert (call(as_method(train)) == 2).all()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "a NumPy array of real numbers must be returned, got a NoneType"),
        (torch.zeros(8, 12), "a NumPy array of real numbers must be returned, got a Tensor"),
        (np.zeros((8, 12), complex), "a NumPy array of real numbers must be returned, got an array of complex128"),
        (np.zeros((8, 12), bool), "a NumPy array of real numbers must be returned, got an array of bool"),
        (np.zeros((8, 12), object), "a NumPy array of real numbers must be returned, got an array of object"),
        (np.zeros((12, 8)), r"an array \(8, 12\) must be returned, got \(12, 8\)"),
        (np.zeros((8, 12, 1)), r"an array \(8, 12\) must be returned, got \(8, 12, 1\)"),
        (np.full((8, 12), np.nan), "a depth must be returned for every pixel, got nan or inf at 96"),
        (np.full((8, 12), -np.inf), "a depth must be returned for every pixel, got nan or inf at 96"),
        (np.full((8, 12), 1e300), "a depth must be returned for every pixel, got nan or inf at 96"),
    ],
)
def test_a_result_that_is_no_depth(result: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        call(as_method(lambda low, guide, factor: result))


def test_a_function_that_raises(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys\n"
        "def fails(low, guide, factor):\n"
        "    raise ValueError('two\\nlines')\n"
        "def ends(low, guide, factor):\n"
        "    sys.exit(3)\n"
        "def few(low):\n"
        "    return low\n"
    )
    fails, ends, few = load([f"{file}:{name}" for name in ("fails", "ends", "few")]).values()
    for method, line in (
        (fails, f"raised ValueError: two lines ({file}, line 3)"),
        (ends, f"raised SystemExit: 3 ({file}, line 5)"),
        (few, "raised TypeError: few() takes 1 positional argument but 3 were given"),
    ):
        with pytest.raises(DataError) as raised:
            call(method)
        assert str(raised.value) == line


def test_ctrl_c_is_no_failure_of_the_function() -> None:
    def stopped(low, guide, factor):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(as_method(stopped))


@pytest.mark.parametrize("name", ["mine.py", "mine", ":f", "mine.py:", "mine.txt:f", "mine.py:a.b", "mine.py:a b"])
def test_a_name_of_another_form(name: str) -> None:
    with pytest.raises(UserError) as raised:
        load([name])
    assert str(raised.value) == f"--beside must be FILE.py:FUNCTION, got {name!r}"


def test_what_the_file_has_not(file: Path, tmp_path: Path) -> None:
    for name, line in (
        (f"{tmp_path}/no.py:f", f"{tmp_path}/no.py: no such file"),
        (f"{file}:f", f"a function f is required in {file}, there is none"),
        (f"{file}:COUNT", f"a function COUNT is required in {file}, it is a int"),
    ):
        with pytest.raises(UserError) as raised:
            load([name])
        assert str(raised.value) == f"--beside {name}: {line}"
    with pytest.raises(UserError, match="zero is given twice; give it once"):
        load([f"{file}:zero", f"{file}:zero"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_module_that_is_not_there\n", "raised ModuleNotFoundError: No module named 'a_module_that_is_not_th"),
        ("1 / 0\n", "raised ZeroDivisionError: division by zero (FILE, line 1)"),
        ("def f(:\n", "raised SyntaxError: "),
        ("raise SystemExit('done')\n", "raised SystemExit: done (FILE, line 1)"),
        ("x = '\0'\n", "raised SyntaxError: "),
    ],
)
def test_a_file_that_fails(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        load([f"{file}:f"])
    line = str(raised.value)
    assert line.startswith(f"--beside {file}:f: {message.replace('FILE', str(file))}") and "\n" not in line
