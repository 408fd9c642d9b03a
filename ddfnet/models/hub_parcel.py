"""What huggingface_hub sends and fetches: a network in the folder of its own, see `ddfnet.models.hub`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors.torch import load_file

from ddfnet import files
from ddfnet.loading import load_weights
from ddfnet.models import network_files
from ddfnet.models.hub import Hub

_CARD = """---
{{ card_data }}
---

# {{ network }}

A network of ddfnet, decoupled dynamic filters for PyTorch (Zhou et al., CVPR 2021).

```python
from ddfnet.models import {{ network }}

network = {{ network }}.from_pretrained("FOLDER or USER/NAME")
```

`config.json` has what it was made with, `model.safetensors` the weights.
"""


class Parcel(PyTorchModelHubMixin, library_name="ddfnet", model_card_template=_CARD):
    """A network on its way: the mixin is not the network's own base, which would bring huggingface_hub with it.

    Args:
        network: with the methods of `Hub`.
        written: its ``config.json``.
    """

    def __init__(self, network: Any, written: str) -> None:
        self.network, self.written = network, written

    @classmethod
    def pack(cls, network: Hub) -> Parcel:
        """The parcel of a network.

        Raises:
            ValueError: JSON cannot hold what it was made with.
        """
        config = network.hub_config()
        try:
            return cls(network, json.dumps(config, indent=2) + "\n")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"what the network was made with must be what JSON can hold, such as numbers and text: {error}"
            ) from None

    def _save_pretrained(self, save_directory: Path) -> None:
        file = save_directory / SAFETENSORS_SINGLE_FILE
        network_files.save(self.network, file, None, self.network.hub_header())
        files.atomic_write(save_directory / CONFIG_NAME, self.written)

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls, *, model_id: str, kind: type[Hub], options: dict[str, Any], config: Any = None, **of_hub: Any
    ) -> Parcel:
        if not isinstance(config, dict):
            raise ValueError(f"there must be a {CONFIG_NAME} with a dictionary")
        network: Any = kind.of_hub_config(config, options)
        if Path(model_id).is_dir():
            file = str(Path(model_id) / SAFETENSORS_SINGLE_FILE)
        else:
            file = hf_hub_download(model_id, SAFETENSORS_SINGLE_FILE, **of_hub)
        load_weights(network, load_file(file))
        return cls(network.eval(), json.dumps(config))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        return super().generate_model_card(*args, network=type(self.network).__name__, **kwargs)
