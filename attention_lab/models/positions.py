"""How a model tells its layers where tokens stand: codes added to the embeddings, or queries and keys turned (RoPE).

`resolve` is the one rule for `--config.model.positions`:

  auto      what each layer needs: nothing where its variant has positions of its own, RoPE where it has queries and
            keys, and learned codes on the embeddings if some layer has neither
  rope      in every layer without positions of its own; refused if one of those has no queries and keys to turn
  learned, sinusoidal, sincos2d     added to the embeddings, whatever the variants have
  none      nothing
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Dims
from attention_lab.models import keys
from attention_lab.models.dimensions import FLAG, choose

CHOICES = ("auto", "none", "learned", "sinusoidal", "rope", "sincos2d")
BASE = 10_000.0  # longest wavelength / 2π of sinusoids and rotations
STD = 0.02  # of learned codes when they start


def resolve(positions: str, variants: tuple[Attention, ...], grid: bool = False) -> str:
  """What `positions` comes to for these layers: none, learned, sinusoidal, sincos2d, rope or rope+learned.

  grid: whether tokens have a 2-D grid, which sincos2d needs. Raises ValueError for an unknown or impossible choice.
  """
  choose(f"{FLAG}.positions", positions, CHOICES)
  needy = [variant for variant in variants if not variant.claims().own_positions]
  stiff = [variant for variant in needy if not _turns(variant)]
  if positions == "auto":
    codes = ["rope"] * (len(needy) > len(stiff)) + ["learned"] * bool(stiff)
    return "+".join(codes) or "none"
  if positions == "rope" and stiff:
    raise ValueError(
      f"{FLAG}.positions=rope turns queries and keys, and {spec.to_string(stiff[0])} lacks them; give auto or learned"
    )
  if positions == "rope" and not needy:
    raise ValueError(
      f"{FLAG}.positions=rope: {spec.to_string(variants[0])} has positions of its own; give auto or none"
    )
  if positions == "sincos2d" and not grid:
    raise ValueError(f"{FLAG}.positions=sincos2d needs images; give sinusoidal for sequences")
  return positions


def check_widths(resolved: str, dims: Dims) -> None:
  """Raises ValueError for widths that the codes cannot halve."""
  needs = {
    "rope": ("head_width", dims.head, 2),
    "sinusoidal": ("width", dims.model, 2),
    "sincos2d": ("width", dims.model, 4),
  }
  for name, (field, given, divisor) in needs.items():
    if name in resolved and given % divisor:
      raise ValueError(f"{FLAG}.positions={name} needs a {FLAG}.{field} that {divisor} divides, not {given}")


def rotates(resolved: str, variant: Attention) -> bool:
  """Whether a layer with this variant turns its queries and keys."""
  return "rope" in resolved and _turns(variant) and not variant.claims().own_positions


def rope(x: Float[Array, "B T N H"], positions: Int[Array, "#B T"]) -> Float[Array, "B T N H"]:
  """Turns the pairs (c, c + H/2) of each head by position · 10000^(−2c/H): the half-split form, as in GPT-NeoX.

  In float32; H is even. Su et al. 2021 (https://arxiv.org/abs/2104.09864, equation 34), where neighbours are paired.
  """
  H = x.shape[-1]
  angles = positions[:, :, None, None].astype(jnp.float32) * _frequencies(H // 2)[None, None, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def sinusoidal(positions: Int[Array, "#B T"], width: int) -> Float[Array, "#B T D"]:
  """All sin(i·f), then all cos(i·f), for width/2 frequencies f from 1 down towards 1/10000; the width is even.

  Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762, section 3.5), where the two alternate.
  """
  angles = positions[:, :, None].astype(jnp.float32) * _frequencies(width // 2)[None, None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sincos2d(grid: tuple[int, int], extra: int, width: int) -> Float[Array, "1 T D"]:
  """Half the width codes the row, half the column, as in `sinusoidal`; the `extra` leading tokens get zeros.

  4 divides the width. As in MoCo v3 (Chen et al. 2021, https://arxiv.org/abs/2104.02057).
  """
  place = jnp.arange(math.prod(grid), dtype=jnp.int32)[None]
  codes = [sinusoidal(axis, width // 2) for axis in (place // grid[1], place % grid[1])]
  return jnp.pad(jnp.concatenate(codes, axis=-1), ((0, 0), (extra, 0), (0, 0)))


class Learned(nnx.Module):
  """One code for each position; it starts small."""

  def __init__(self, max_len: int, width: int, *, key: PRNGKeyArray):
    self.table = nnx.Param(STD * jax.random.normal(keys.child(key, "table"), (max_len, width)))

  def __call__(self, positions: Int[Array, "#B T"]) -> Float[Array, "#B T D"]:
    """The codes; NaN beyond the table, never silently another position."""
    return jnp.take(self.table[...], positions, axis=0, mode="fill", fill_value=jnp.nan)


def _turns(variant: Attention) -> bool:
  return {"q", "k"} <= set(variant.projections)


def _frequencies(count: int) -> Float[Array, "count"]:
  return BASE ** (-jnp.arange(count, dtype=jnp.float32) / count)
