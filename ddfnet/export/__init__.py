"""Export of models to ONNX, to programs of ``torch.export`` and to libraries that AOTInductor compiles."""

from ddfnet.export.api import OPSET, ExportError, ExportReport, MismatchError, export
from ddfnet.export.inputs import images
from ddfnet.export.verify import Difference

__all__ = ["OPSET", "Difference", "ExportError", "ExportReport", "MismatchError", "export", "images"]
