"""Builds the compiled CPU kernel; everything else about the package is in pyproject.toml.

The kernel is optional: where it cannot be built the package installs without it, `ddfnet env` says why, and the PyTorch
reference serves.
"""

import itertools
import os
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

BINDING = sorted(str(path) for path in Path("csrc/binding").glob("*.cpp"))
# A file in csrc/kernels/isa is empty unless the compiler builds for its architecture, which may not be this machine's.
ISAS = sorted(str(path) for path in Path("csrc/kernels/isa").glob("*.cpp"))
SOURCES = [*BINDING, "csrc/kernels/dispatch.cpp", *ISAS]


class OptionalBuild(BuildExtension):
    """A build that tells its progress, and whose failure is a warning."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # One place for the objects of every build: for a wheel after an editable install, ninja compiles none again.
        self.build_temp = str(Path("build", "kernel"))

    def build_extensions(self) -> None:
        print(f"compiling {len(SOURCES)} files of the CPU kernel, which takes some minutes", flush=True)
        os.environ.setdefault("NINJA_STATUS", "[CPU kernel: %f of %t, %e s] ")
        compile_one, done = self.compiler._compile, itertools.count(1)

        def compile(obj: str, source: str, *arguments: object) -> None:  # without ninja
            print(f"[CPU kernel: {next(done)} of {len(SOURCES)}] {source}", flush=True)
            compile_one(obj, source, *arguments)

        self.compiler._compile = compile
        try:
            super().build_extensions()
        except Exception as error:
            self.warn(f"the CPU kernel was not built, the PyTorch reference will serve instead: {error}")
            self.extensions = []

    def get_ext_filename(self, ext_name: str) -> str:
        # Not a Python module but a library that torch loads: no interpreter's tag belongs into its name.
        return str(Path(*ext_name.split(".")).with_suffix(".so"))


kernel = CppExtension(
    "ddfnet.ops.libddfnet",
    SOURCES,
    depends=[str(path) for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inl")],
    extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-g0",  # Python's own flags ask for debug information, twenty times the code's size
        "-fno-math-errno",
        "-fvisibility=hidden",
        "-Wno-psabi",  # vectors are passed between inlined functions only
        "-Wno-maybe-uninitialized",  # gcc's own AVX-512 header
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
    ],
    py_limited_api=True,
)

setup(
    ext_modules=[kernel],
    cmdclass={"build_ext": OptionalBuild},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
