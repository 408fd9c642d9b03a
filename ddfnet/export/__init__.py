"""Models as files that others run: ONNX, programs of ``torch.export``'s, and libraries that AOTInductor compiles."""

from ddfnet.export.api import OPSET, ExportError, MismatchError, Report, export
from ddfnet.export.inputs import images
from ddfnet.export.verify import Difference

__all__ = ["OPSET", "Difference", "ExportError", "MismatchError", "Report", "export", "images"]
