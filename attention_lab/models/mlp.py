"""The part of a layer that works on each token by itself."""

import jax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.models import rng
from attention_lab.models.config_checks import FLAG, MLPS, choose
from attention_lab.models.layers import Linear


class Mlp(nnx.Module):
  """Two linear maps of D to F and back, with a GELU (tanh form) between them."""

  def __init__(self, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0):
    self.up = Linear((width,), (hidden,), key=rng.child(key, "up"))
    self.down = Linear((hidden,), (width,), key=rng.child(key, "down"), gain=gain)

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return self.down(jax.nn.gelu(self.up(x), approximate=True))


class SwigluMlp(nnx.Module):
  """down(silu(gate(x)) · up(x)): Shazeer 2020 (https://arxiv.org/abs/2002.05202, equation 6), here with biases.

  Three maps in place of two: at the same F half as many parameters again. With 2/3 of F, which is the paper's choice
  and is never made silently, there are as many as in `Mlp`.
  """

  def __init__(self, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0):
    self.gate = Linear((width,), (hidden,), key=rng.child(key, "gate"))
    self.up = Linear((width,), (hidden,), key=rng.child(key, "up"))
    self.down = Linear((hidden,), (width,), key=rng.child(key, "down"), gain=gain)

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def mlp(kind: str, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0) -> Mlp | SwigluMlp:
  """The map that `--config.model.mlp` names, with `hidden` = F. Raises ValueError for an unknown one."""
  return {"gelu": Mlp, "swiglu": SwigluMlp}[choose(f"{FLAG}.mlp", kind, MLPS)](width, hidden, key=key, gain=gain)
