"""The forgetting transformer, FoX: softmax attention with a data-dependent decay between key and query.

Lin et al. 2025, https://arxiv.org/abs/2503.02130, section 3, equation 6.

    out_i = Σ_j softmax_j(q_i·k_j / √H + Σ_{j<l≤i} log f_l + b_ij) v_j,   f_l = σ(x_l W + b)

W (`kernel`, D K) and b (`bias`, K) give a forget gate for each key head. The order j < l ≤ i is that of the array, and
the gate of a hidden key counts nothing. Time O(T·S), memory O(S) for each block of queries; decoding state O(S), the
gates beside the keys in float32. Honours causal (and needs it), windows, padding, segments and a bias; refuses the
rest. Departure: a gate for each key head, where the paper has one for each query head.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention import cache
from attention_lab.attention.base import Call, Dims, check_extend, local_heads, logits_dtype
from attention_lab.attention.families import causal_cumsum
from attention_lab.attention.mask import CAUSAL, Mask


@dataclasses.dataclass(frozen=True)
class Fox(causal_cumsum.CausalCumsum):
  def claims(self):
    return dataclasses.replace(super().claims(), exactness="exact")

  def init(self, key, dims: Dims):
    kernel = jax.random.normal(key, (dims.model, dims.kv_heads)) * dims.model**-0.5
    return {"kernel": kernel, "bias": jnp.zeros(dims.kv_heads)}

  def attend(self, params, q, k, v, call: Call):
    return super().attend(params, q, _beside(k, self._gates(params, k, call.x)), v, call)

  def logits(self, params, block):
    scores = super().logits(params, block._replace(k=block.k[..., :-1].astype(block.q.dtype)))
    return scores + causal_cumsum.reverse_cumsum(block.k[:, :, None, :, -1], block.readable)

  def init_state(self, batch, dims: Dims, dtype):
    state = super().init_state(batch, dims, dtype)
    return state | {"gates": jnp.zeros((*state["k"].shape[:3], 1), logits_dtype(state["k"]))}

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    check_extend(self, mask, lengths)
    rest = {name: state[name] for name in state if name != "gates"}
    step = cache.append(rest, k, v, lengths, ring=False)
    gates = cache.append(rest | {"k": state["gates"]}, self._gates(params, k, x), v, lengths, ring=False)
    call = Call(mask & Mask(q_valid=None if lengths is None else step.real), step.positions)
    out = super().attend(params, q, _beside(step.k, gates.k), step.v, call).astype(v.dtype)
    return step.state | {"gates": gates.state["k"]}, jnp.where(step.overflow[:, :, None, None], jnp.nan, out)

  def _gates(self, params, k, x):
    """The log forget gates `B S K 1`."""
    if x is None:
      raise ValueError("Fox reads the layer's input: pass x, of shape B T D")
    dtype = logits_dtype(k, x)
    kernel, bias = (
      local_heads(params[name], k.shape[2], axis).astype(dtype) for name, axis in (("kernel", 1), ("bias", 0))
    )
    return jax.nn.log_sigmoid(jnp.tensordot(x.astype(dtype), kernel, axes=1) + bias[None, None])[..., None]


def _beside(k, gates):
  """Keys with their gates as one more channel."""
  return jnp.concatenate([k.astype(gates.dtype), gates], axis=-1)
