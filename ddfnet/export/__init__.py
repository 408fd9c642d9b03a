"""Models as files that others run: ONNX, programs of ``torch.export``'s, and libraries that AOTInductor compiles."""

from ddfnet.export.checking import Difference
from ddfnet.export.exporting import OPSET, ExportError, MismatchError, Report, export
from ddfnet.export.inputs import pictures

__all__ = ["OPSET", "Difference", "ExportError", "MismatchError", "Report", "export", "pictures"]
