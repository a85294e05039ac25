"""Multi-head latent attention, MLA: keys and values of all heads come from one narrow latent, and only it is cached.

DeepSeek-AI 2024, DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1 and appendix C.

    out_i = Σ_j softmax_j((qᶜ_i·W^K_n c_j + qᴿ_i·kᴿ_j) / √(H + R) + b_ij) W^V_n c_j
    c_j = rms(y_j W_D),   kᴿ_j = rope(y_j W_R),   [qᶜ_i, qᴿ_i] = u_i W^Q_n, the second part turned by rope
    u_i = x_i, or rms(x_i W_Q) of width query_rank

It reads the layer's input and has no projections but the last. Where it is cheaper, and always in decoding, queries
read the latent as it is: (qᶜ W^K_n)·c_j. Time O(T·S), memory O(T) by tiles; decoding state kv_rank +
R a token. Honours every mask and a bias; refuses nothing. Departure: the norms have no gains, which the next matrix
absorbs.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention import cache
from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims, check_extend, logits_dtype
from attention_lab.attention.engines.flash import forward
from attention_lab.attention.families import qk_transforms
from attention_lab.attention.families.qk_transforms import rms_norm
from attention_lab.attention.mask import CAUSAL, Mask


@dataclasses.dataclass(frozen=True)
class Mla(Attention):
  projections: ClassVar[str] = "o"
  resizable: ClassVar[tuple[str, ...]] = ("kv_rank", "query_rank")

  kv_rank: int = 64  # width of c
  query_rank: int = 0  # width of u; 0 = the layer's input itself
  rope: int = 32  # R, channels that carry positions
  base: float = qk_transforms.BASE  # longest wavelength / 2π

  def __post_init__(self):
    if self.kv_rank < 1 or self.query_rank < 0:
      raise ValueError(f"kv_rank={self.kv_rank} must be at least 1 and query_rank={self.query_rank} at least 0")
    if self.rope < 2 or self.rope % 2 or not self.base > 0:
      raise ValueError(f"rope={self.rope} must be even and at least 2, and base={self.base} positive")

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, supports_gqa=False, encodes_positions=True)

  def init(self, key, dims: Dims):
    N, D, inner = dims.heads, dims.model, self.query_rank or dims.model
    shared = {"down": (D, self.kv_rank), "rope": (D, self.rope), "query": (D, self.query_rank)}
    heads = {"query": (N, inner, dims.head + self.rope), "keys": (N, self.kv_rank, dims.head)}
    keys = iter(jax.random.split(key, 6))

    def drawn(shapes):
      return {n: jax.random.normal(next(keys), shape) * shape[-2] ** -0.5 for n, shape in shapes.items() if shape[-1]}

    return drawn(shared) | {"per_head": drawn(heads | {"values": (N, self.kv_rank, dims.value)})}

  def attend(self, params, q, k, v, call: Call):
    y: Any = call.x if call.y is None else call.y
    latent, code = self._latents(params, y, call.positions.keys(y.shape[1]))
    widths = sum(params["per_head"][name].shape[-1] for name in ("keys", "values"))
    return self._read(params, latent, code, call, folded=2 * self.kv_rank <= widths)

  def init_state(self, batch, dims: Dims, dtype):
    return cache.empty(batch, dims.max_len, 1, (self.kv_rank, self.rope), dtype)

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    check_extend(self, mask, lengths)
    if x is None:
      raise ValueError("Mla reads the layer's input: pass x, of shape B T D")
    i = state["length"][:, None] + jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    step = cache.append(state, *self._latents(params, x, i), lengths, ring=False)
    call = Call(mask & Mask(q_valid=None if lengths is None else step.real), step.positions, x=x)
    out = self._read(params, step.k, step.v, call, folded=True)
    return step.state, jnp.where(step.overflow[:, :, None, None], jnp.nan, out)

  def _latents(self, params, y, j):
    """The latents c `B S 1 kv_rank` and the keys kᴿ of positions `B S 1 R`."""
    latent, code = (_mapped(y, params[name])[:, :, None] for name in ("down", "rope"))
    return rms_norm(latent), self._turned(code, j)

  def _turned(self, x, positions):
    return qk_transforms.apply_rotary(x, qk_transforms.angles(positions, self.rope // 2, x, self.base))

  def _read(self, params, latent, code, call, folded):
    """The output `B T N V`; folded: the latent is key and value of all heads, else each head has its own."""
    x, per_head = call.x, params["per_head"]
    u = x if not self.query_rank else rms_norm(_mapped(x, params["query"]))
    q = jnp.einsum("btd,ndh->btnh", u.astype(logits_dtype(x)), per_head["query"].astype(logits_dtype(x)))
    q, turned = jnp.split(q, [per_head["keys"].shape[-1]], axis=-1)
    scale = (q.shape[-1] + self.rope) ** -0.5
    turned = self._turned(turned, call.positions.queries(x.shape[1]))
    to_keys, to_values = per_head["keys"].astype(q.dtype), per_head["values"].astype(q.dtype)
    latent, code = latent.astype(q.dtype), code.astype(q.dtype)
    if folded:
      q, k, v = jnp.einsum("btnh,nrh->btnr", q, to_keys), latent, latent
    else:
      k, v = (jnp.einsum("bsr,nrh->bsnh", latent[:, :, 0], matrix) for matrix in (to_keys, to_values))
    code = jnp.broadcast_to(code, (*k.shape[:3], self.rope))
    q, k = jnp.concatenate([q, turned], axis=-1).astype(x.dtype), jnp.concatenate([k, code], axis=-1).astype(x.dtype)
    out = forward.attend(q, k, v.astype(x.dtype), call, scale)[0]
    return (jnp.einsum("btnr,nrv->btnv", out.astype(to_values.dtype), to_values) if folded else out).astype(x.dtype)


def _mapped(x, matrix):
  """The product of x and the matrix in float32 or wider."""
  return jnp.tensordot(x.astype(logits_dtype(x)), matrix.astype(logits_dtype(x)), axes=1)
