"""Change the layers of a network that is already there.

`replace_conv` and `replace_upsample` put DDF layers in the place of a model's own, `freeze` puts back static ones where
filters hardly vary, each in place, with a `Report` that can be undone; `fuse` makes a copy for inference, and `compare`
reports what a copy differs in.
"""

from ddfnet.surgery.comparing import compare
from ddfnet.surgery.convolutions import replace_conv
from ddfnet.surgery.freezing import freeze
from ddfnet.surgery.fusing import fuse
from ddfnet.surgery.report import Change, Report
from ddfnet.surgery.upsampling import replace_upsample

__all__ = ["Change", "Report", "compare", "freeze", "fuse", "replace_conv", "replace_upsample"]
