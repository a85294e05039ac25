"""Rotary position embedding: pairs of channels of queries and keys are turned by angles that grow with the position.

Su et al. 2021, https://arxiv.org/abs/2104.09864, equation 34, in the half-split form of GPT-NeoX: of the R channels
that turn, c and c + R/2 are a pair, where the paper pairs neighbours. Position m turns pair c by the angle m·θ_c:

    θ_c = base^(−2c/R)

and so inner products depend on the distance alone. A model trained on L positions reads s·L of them (s = factor) with

  linear   θ_c / s: position interpolation, Chen et al. 2023, https://arxiv.org/abs/2306.15595, section 2.3
  ntk      the base times s^(R/(R−2)), so that the slowest pair is interpolated and the fastest is not: NTK-aware
           scaling (bloc97 2023; section 3.1 of YaRN)
  yarn     Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.2 ("NTK by parts") and 3.4 (temperature):

               θ'_c = (1 − γ(r_c)) θ_c/s + γ(r_c) θ_c,   r_c = L θ_c / 2π turns within L positions
               γ(r) = 0 below alpha, 1 above beta, (r − alpha) / (beta − alpha) between

           and queries and keys are multiplied by 0.1·ln(s) + 1, for softmax over q·k; channels that do not turn are
           too, as the factor is one of the logit. A variant that brings queries and keys to unit length undoes it.
           The authors' code ramps over c instead of r.

On a grid (`Rope2d`) half of the pairs turn by the row and half by the column, and tokens before the grid do not turn:
Heo et al. 2024, https://arxiv.org/abs/2403.13298, section 3.2 ("RoPE-Axial", with its base of 100).
"""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Dims
from attention_lab.attention.families import qk_transforms
from attention_lab.attention.families.qk_transforms import BASE, frequencies
from attention_lab.attention.positions import Positions
from attention_lab.models.config_checks import FLAG, choose
from attention_lab.models.position_encodings import PositionEncoding, row_and_column

SCALINGS = ("none", "linear", "ntk", "yarn")


@dataclasses.dataclass(frozen=True)
class Rotation(PositionEncoding):
  """Turns the first `fraction` of the channels of each head of queries and keys."""

  acts_on: ClassVar[str] = "queries and keys"
  divisor: ClassVar[int] = 2  # of the channels that turn

  base: float = BASE  # longest wavelength / 2π, tokens
  fraction: float = 1.0  # of a head's channels that turn (rotary_pct); the others stay as they are

  def __post_init__(self):
    if not 1 < self.base < math.inf:
      raise ValueError(f"{self.name}: base={self.base} must be above 1")
    if not 0 < self.fraction <= 1:
      raise ValueError(f"{self.name}: fraction={self.fraction} must lie in (0, 1]; 1 turns all channels")

  def __call__(self, x: Float[Array, "B T N H"], where: Positions) -> Float[Array, "B T N H"]:
    """Queries or keys x at their positions, turned."""
    return rotate(x, self.angles(where, x.shape[1], self.channels(x.shape[-1])), self.gain)

  def angles(self, where: Positions, length: int, channels: int) -> Float[Array, "#B T P"]:
    """The angle of each token and pair of channels, in radians."""
    raise NotImplementedError

  @property
  def gain(self) -> float:
    """Factor of queries and of keys."""
    return 1.0

  def channels(self, head: int) -> int:
    """R: how many of the channels of a head turn."""
    return round(self.fraction * head)

  def refusal(self, variant: Attention) -> str:
    if {"q", "k"} <= set(variant.projections):
      return ""
    other = "sincos2d or learned" if self.needs_grid else "auto or learned"
    return f"turns queries and keys, and {spec.to_string(variant)} lacks them; give {other}"

  def check(self, dims: Dims) -> None:
    count = self.fraction * dims.head
    if abs(count - round(count)) < 1e-6 and round(count) % self.divisor == 0 and round(count):
      return
    if self.fraction == 1:
      raise ValueError(
        f"{FLAG}.positions={self.name} needs a {FLAG}.head_width that {self.divisor} divides, not {dims.head}"
      )
    turned = f"fraction={self.fraction} of {FLAG}.head_width={dims.head} is {count:g} channels"
    raise ValueError(f"{FLAG}.positions={self.name}: {turned}; give one that is a positive multiple of {self.divisor}")


@dataclasses.dataclass(frozen=True)
class Rope(Rotation):
  """Angles grow with the position in the sequence."""

  scaling: str = "none"  # none, linear, ntk or yarn: how longer sequences than in training are read
  factor: float = 1.0  # s ≥ 1: how many times longer
  length: int = 0  # L, tokens in training; for yarn
  alpha: float = 1.0  # pairs that turn less often within L are interpolated; for yarn
  beta: float = 32.0  # pairs that turn more often within L are left alone; for yarn

  def __post_init__(self):
    super().__post_init__()
    choose("rope: scaling", self.scaling, SCALINGS)
    if not 1 <= self.factor < math.inf:
      raise ValueError(f"rope: factor={self.factor} must be at least 1, as it is the new length over the old")
    if self.scaling == "none" and self.factor != 1:
      raise ValueError(f"rope: factor={self.factor} needs scaling='linear', 'ntk' or 'yarn'")
    for name in ("length", "alpha", "beta"):
      if self.scaling != "yarn" and getattr(self, name) != getattr(Rope, name):
        raise ValueError(f"rope: {name}={getattr(self, name)} belongs to scaling='yarn': leave it out")
    if self.scaling == "yarn" and self.length < 1:
      raise ValueError(f"rope: scaling='yarn' needs length, the tokens in training, not {self.length}")
    if not 0 <= self.alpha < self.beta:
      raise ValueError(f"rope: alpha={self.alpha} must be at least 0 and below beta={self.beta}")

  def angles(self, where: Positions, length: int, channels: int) -> Float[Array, "#B T P"]:
    return where.queries(length)[:, :, None].astype(jnp.float32) * self.speeds(channels)[None, None]

  def speeds(self, channels: int) -> Float[Array, "P"]:
    """Radians by which each pair turns from one position to the next."""
    base = ntk_base(self.base, self.factor, channels) if self.scaling == "ntk" else self.base
    plain = frequencies(channels // 2, base)
    if self.scaling == "yarn":
      return by_parts(plain, self.factor, self.length, self.alpha, self.beta)
    return plain / self.factor if self.scaling == "linear" else plain

  @property
  def gain(self) -> float:
    return 0.1 * math.log(self.factor) + 1 if self.scaling == "yarn" else 1.0

  def check(self, dims: Dims) -> None:
    super().check(dims)
    if self.scaling == "ntk" and self.channels(dims.head) < 4:
      raise ValueError(f"{FLAG}.positions=rope: scaling='ntk' needs 4 channels that turn, not 2; give a wider head")


@dataclasses.dataclass(frozen=True)
class Rope2d(Rotation):
  """Angles of the first half of the pairs grow with the row, those of the second half with the column."""

  divisor: ClassVar[int] = 4
  needs_grid: ClassVar[bool] = True
  alternative: ClassVar[str] = "rope"

  base: float = 100.0

  def angles(self, where: Positions, length: int, channels: int) -> Float[Array, "#B T P"]:
    _, columns = self.grid(where)
    cell = where.queries(length) - where.extra
    axes = [jnp.where(cell < 0, 0, axis)[:, :, None].astype(jnp.float32) for axis in row_and_column(cell, columns)]
    speeds = frequencies(channels // 4, self.base)[None, None]
    return jnp.concatenate([axis * speeds for axis in axes], axis=-1)


def rotate(x: Float[Array, "B T N H"], angles: Float[Array, "#B T P"], gain: float = 1.0) -> Float[Array, "B T N H"]:
  """Turns the pairs of channels (c, c + P) by their angles in radians, then multiplies all channels by `gain`.

  In float32. Channels from 2P on do not turn.
  """
  turned = qk_transforms.apply_rotary(x.astype(jnp.float32), angles)
  return (turned if gain == 1 else gain * turned).astype(x.dtype)


def ntk_base(base: float, factor: float, channels: int) -> float:
  """Gives base · factor^(R/(R−2)), for R > 2 channels that turn."""
  return base if factor == 1 else base * factor ** (channels / (channels - 2))


def by_parts(plain: Float[Array, "P"], factor: float, length: int, alpha: float, beta: float) -> Float[Array, "P"]:
  """The speeds of YaRN from plain ones, in radians; length: L in tokens. Section 3.2 of the paper (γ, h)."""
  turns = length * plain / (2 * math.pi)
  share = jnp.clip((turns - alpha) / (beta - alpha), 0.0, 1.0)
  return plain * ((1 - share) / factor + share)
