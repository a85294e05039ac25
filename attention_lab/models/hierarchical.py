"""A vision transformer whose grid becomes coarser and whose tokens become wider, stage by stage.

Liu et al. 2021 (Swin), https://arxiv.org/abs/2103.14030, section 3.1. Theirs is `swin|swin(shift=3)` with
`positions=bias2d`, `patch=4` and `stages=2,2,6,2`; here any variant reads the grid of its stage:

    patches → stage 0: h/p × w/p tokens, D wide → merging → stage 1: half the rows and columns, 2D wide → … → mean

Merging is a linear map of the 4D numbers of a 2×2 square of tokens to 2D. Layers are counted over all stages, and the
attention's layers are repeated over them. Variants on a grid take it from the positions, so that one with a grid of its
own (`columns=`) is refused, as are causal ones by themselves. Departures: the norm that ends a stage stands in place of
the one between square and linear map; the bias of offsets spans the whole grid of a stage, not one window.
"""

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Unsupported
from attention_lab.attention.families.gridded import OnGrid
from attention_lab.attention.head_mixture import single_variants
from attention_lab.attention.mask import FULL
from attention_lab.attention.positions import Positions
from attention_lab.models import config_checks
from attention_lab.models.config_checks import FLAG
from attention_lab.models.layers import Linear, Output, named_key
from attention_lab.models.pooling import AttentionPooling
from attention_lab.models.transformer import Transformer
from attention_lab.models.vision import VisionConfig, layout
from attention_lab.models.vision_transformer import patches

POOLINGS = ("mean", "attention")


def depths(config: VisionConfig) -> tuple[int, ...]:
  """How many layers each stage has; together `config.layers`. Raises ValueError for another sum or a malformed list."""
  if not config.stages:
    return tuple(count for count in (config.layers - config.layers // 2, config.layers // 2) if count)
  parts = [part.strip() for part in config.stages.split(",")]
  if not all(part.isdecimal() and int(part) for part in parts):
    raise ValueError(f"{FLAG}.stages={config.stages} is malformed: write the layers of each stage, at least 1, as 2,2")
  counts = tuple(map(int, parts))
  if sum(counts) != config.layers:
    total = f"{FLAG}.stages={config.stages} has {sum(counts)} layers"
    raise ValueError(f"{total}, and {FLAG}.layers is {config.layers}: give equal numbers")
  return counts


def grids(config: VisionConfig, image: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
  """Rows and columns of tokens in each stage. Raises ValueError where a grid cannot be halved as often."""
  (rows, columns), _ = layout(config, image)
  count = len(depths(config))
  if rows % 2 ** (count - 1) or columns % 2 ** (count - 1):
    fix = f"give another {FLAG}.patch or fewer stages"
    raise ValueError(
      f"a grid of {rows}×{columns} patches cannot be halved {count - 1} times for {count} {FLAG}.stages; {fix}"
    )
  return tuple((rows >> stage, columns >> stage) for stage in range(count))


class HierarchicalVisionTransformer(nnx.Module):
  """Logits over C classes of images `B h w c`.

  Each stage is a `Transformer`. Width, heads, kv_heads and mlp_width are those of the first and double from stage to
  stage; the width of a head stays. Codes of positions that are added to embeddings are added at the start of each
  stage, as in PVT (Wang et al. 2021, https://arxiv.org/abs/2102.12122). pooling: mean or attention, over the last
  stage's tokens.
  """

  def __init__(
    self,
    config: VisionConfig,
    image: tuple[int, int, int],
    classes: int,
    *,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
  ):
    _check(config)
    self.patch, self.grids = config.patch, grids(config, image)
    settings = _settings(config)
    stages_key = named_key(key, "stages")
    self.patches = Linear((self.patch**2 * image[2],), (config.width,), key=named_key(key, "patches"))
    self.stages = nnx.List(
      Transformer(part, math.prod(grid), key=named_key(stages_key, str(i)), grid=grid, mesh=mesh)
      for i, (part, grid) in enumerate(zip(settings, self.grids, strict=True))
    )
    merges = named_key(key, "merges")
    self.merges = nnx.List(
      Linear((4 * part.width,), (2 * part.width,), key=named_key(merges, str(i)))
      for i, part in enumerate(settings[:-1])
    )
    if config.pooling == "attention":
      self.pool = AttentionPooling(settings[-1], key=named_key(key, "pool"), mesh=mesh)
    self.head = Linear((settings[-1].width,), (classes,), key=named_key(key, "head"))

  def __call__(self, images: Float[Array, "B h w c"], *, key: PRNGKeyArray | None = None) -> Output:
    """Logits `B C` in float32, of pixels in [0, 1], which are brought to [−1, 1]; layers count through all stages."""
    x = self.patches(patches(2.0 * images - 1.0, self.patch).astype(self.stages[0].dtype))
    losses: dict[str, Array] = {}
    stats: dict[str, Array] = {}
    first = 0
    for i, (stage, grid) in enumerate(zip(self.stages, self.grids, strict=True)):
      x, stage_losses, measured = stage(x, mask=FULL, positions=Positions(grid=grid), key=named_key(key, f"stage_{i}"))
      losses |= {name: losses[name] + value if name in losses else value for name, value in stage_losses.items()}
      stats |= {_renumbered(name, first): value for name, value in measured.items()}
      first += len(stage.variants)
      if i < len(self.merges):
        x = self.merges[i](patches(x.reshape(x.shape[0], *grid, x.shape[2]), 2))
    pooled = self.pool(x) if hasattr(self, "pool") else jnp.mean(x, axis=1)
    return Output(self.head(pooled, jnp.float32), losses, stats)


def _settings(config: VisionConfig) -> list[VisionConfig]:
  """The configuration of each stage, with its part of the attention's layers."""
  variants, settings = list(config_checks.variants(config)), []
  _check_grids(variants)
  for stage, count in enumerate(depths(config)):
    stage_variants, variants = variants[:count], variants[count:]
    sizes = {name: getattr(config, name) << stage for name in ("width", "heads", "kv_heads", "mlp_width")}
    attention = "|".join(map(spec.to_string, stage_variants))
    settings.append(dataclasses.replace(config, attention=attention, layers=count, stages="", **sizes))
  return settings


def _check(config: VisionConfig) -> None:
  """Refuses what merging has no place for."""
  config_checks.choose(f"{FLAG}.pooling", config.pooling, POOLINGS)
  if config.size:
    sizes = "layers, width, heads, mlp_width and patch"
    raise ValueError(f"{FLAG}.size={config.size} is that of a plain vision transformer; for stages give {sizes}")
  if config.registers:
    why = "merging has no place for tokens before the grid"
    raise ValueError(f"{FLAG}.registers={config.registers}: {why}; give 0, or {FLAG}.architecture=vit")


def _check_grids(variants: list[Attention]) -> None:
  """Refuses variants that have a grid of their own, for each stage has another."""
  for variant in variants:
    for part in single_variants(variant):
      if isinstance(part, OnGrid) and getattr(part, part.field):
        fix = "give axial or another in rows and columns"
        if part.field == "columns":
          fix = "leave columns out: each stage gives its own"
        raise Unsupported(f"{spec.to_string(part)} has one grid, and {FLAG}.architecture=hierarchical several; {fix}")


def _renumbered(name: str, first: int) -> str:
  """`layer_0/entropy` of a stage whose first layer has this number."""
  layer, _, rest = name.removeprefix("layer_").partition("/")
  return f"layer_{int(layer) + first}/{rest}"
