"""Models that classify images, by `--config.model.architecture`."""

import importlib
import math

from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from attention_lab.models.config_checks import FLAG, choose
from attention_lab.models.vision_transformer import VisionConfig, layout, sized

ARCHITECTURES = {  # module and class; imported when asked for
  "vit": ("vision_transformer", "VisionTransformer"),
  "hierarchical": ("hierarchical", "HierarchicalVisionTransformer"),
  "resnet": ("baselines.residual", "ResNet"),
}
OWNERS = {
  "stages": "hierarchical",
  "registers": "vit",
  "size": "vit",
  "block": "resnet",
}  # of a field, the architecture


def build(
  config: VisionConfig, image: tuple[int, int, int], classes: int, *, key: PRNGKeyArray, mesh: Mesh | None = None
) -> nnx.Module:
  """The model `config.architecture`: (images `B h w c` in [0, 1], key=) -> Output with logits `B C`.

  image: height, width and channels. Raises ValueError for an unknown architecture, or a field that is another's.
  """
  check(config)
  module, kind = ARCHITECTURES[config.architecture]
  found = importlib.import_module(f"attention_lab.models.{module}")
  return getattr(found, kind)(config, image, classes, key=key, mesh=mesh)


def check(config: VisionConfig) -> None:
  """Raises ValueError for an unknown architecture, or a field that belongs to another one, naming the flags."""
  name, default = choose(f"{FLAG}.architecture", config.architecture, ARCHITECTURES), type(config)()
  for field, owner in OWNERS.items():
    given = getattr(config, field)
    if owner != name and given != getattr(default, field):
      fix = f"leave it out, or give {FLAG}.architecture={owner}"
      raise ValueError(f"{FLAG}.{field}={given} means nothing to {FLAG}.architecture={name}: {fix}")


def places(config: VisionConfig, image: tuple[int, int, int]) -> int:
  """How many tokens enter the first layer; of a residual network, the pixels. Raises ValueError as `layout`."""
  check(config)
  if config.architecture == "resnet":
    return math.prod(image[:2])
  grid, extra = layout(sized(config), image)
  return math.prod(grid) + extra
