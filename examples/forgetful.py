import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims
from attention_lab.attention.engines.chunked import attend_in_blocks, combine, dots


@dataclasses.dataclass(frozen=True)
class Forgetful(Attention):
  """out_i = Σ_j (q_i·k_j)^p v_j / Σ_j (q_i·k_j)^p."""

  power: int = 2  # p, even

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, exactness="other")

  def attend(self, params, q, k, v, call: Call):
    def equation(block):
      weights = dots(block) ** self.power
      total = jnp.sum(weights, axis=-1, keepdims=True)
      return combine(weights, block) / jnp.where(total == 0.0, 1.0, total)

    return attend_in_blocks(equation, q, k, v, call)
