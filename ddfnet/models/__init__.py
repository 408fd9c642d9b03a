"""Networks. Importing this registers the classification networks with timm (``timm.list_models("ddf_*")``)."""

try:
    import timm as _timm  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("ddfnet.models needs timm: pip install 'ddfnet[models]'", name=error.name) from error

from ddfnet.models.resnet import (
    ddf_add_resnet18,
    ddf_add_resnet50,
    ddf_add_resnet101,
    ddf_add_resnet152,
    ddf_mul_resnet18,
    ddf_mul_resnet50,
    ddf_mul_resnet101,
    ddf_mul_resnet152,
)

__all__ = [
    "ddf_add_resnet18",
    "ddf_add_resnet50",
    "ddf_add_resnet101",
    "ddf_add_resnet152",
    "ddf_mul_resnet18",
    "ddf_mul_resnet50",
    "ddf_mul_resnet101",
    "ddf_mul_resnet152",
]
