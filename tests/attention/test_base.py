"""Shapes and capabilities are checked once, before any variant computes: what is not claimed is refused by name."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, Attention, AttentionOutput, Call, Claims, Dims, Mask, Unsupported
from attention_lab.attention.base import EVERY_MASK, check_extend, logits_dtype


@dataclasses.dataclass(frozen=True)
class Mean(Attention):
  """The mean of the values, with claims to choose."""

  promises: Claims = Claims()

  def claims(self):
    return self.promises

  def attend(self, params, q, k, v, call):
    mean = jnp.mean(v, axis=1, keepdims=True)
    return jnp.broadcast_to(jnp.repeat(mean, q.shape[2] // v.shape[2], axis=2), (*q.shape[:3], v.shape[3]))


@dataclasses.dataclass(frozen=True)
class Reader(Attention):
  """Reads the layer's input alone, and adds a loss."""

  projections: ClassVar[str] = ""

  def claims(self):
    return Claims(cross=False, decode=False, per_query=False)

  def attend(self, params, q, k, v, call):
    return AttentionOutput(2.0 * call.x, {"penalty": jnp.float32(3.0)})


def arrays(T=5, S=5, N=4, K=4, H=3, V=2, B=2):
  return jnp.ones((B, T, N, H)), jnp.ones((B, S, K, H)), jnp.ones((B, S, K, V))


DEMANDS = {
  "causal": CAUSAL,
  "window": Mask(window=2),
  "prefix": Mask(causal=True, prefix=jnp.array([1, 2])),
  "q_valid": Mask(q_valid=jnp.ones((2, 5), bool)),
  "kv_valid": Mask(kv_valid=jnp.ones((2, 5), bool)),
  "segments": Mask(q_segments=jnp.ones((2, 5), int), k_segments=jnp.ones((2, 5), int)),
  "explicit": Mask(explicit=jnp.ones((1, 1, 5, 5), bool)),
}


@pytest.mark.parametrize("name", DEMANDS)
def test_a_mask_constraint_that_is_not_claimed_is_refused_by_name(name):
  variant = Mean(Claims(masks=EVERY_MASK - {name}))
  with pytest.raises(Unsupported, match=f"Mean does not honour the mask constraint '{name}'; it honours"):
    variant({}, *arrays(), mask=DEMANDS[name])
  assert Mean(Claims(masks=EVERY_MASK))({}, *arrays(), mask=DEMANDS[name]).shape == (2, 5, 4, 2)


@pytest.mark.parametrize(
  ("claims", "sizes", "demands", "message"),
  [
    ({}, {}, {"bias": jnp.zeros((1, 1, 5, 5))}, "Mean has no logits to add a bias to"),
    ({"requires_causal": True}, {}, {}, r"Mean is causal by construction: call it with mask=Mask\(causal=True\)"),
    ({"supports_gqa": False}, {"K": 2}, {}, "Mean needs as many key and value heads as query heads, not 2 for 4"),
    ({"cross": False}, {"S": 7}, {}, "cross-attention .* is not claimed"),
  ],
)
def test_a_call_that_is_not_claimed_is_refused_by_name(claims, sizes, demands, message):
  with pytest.raises(Unsupported, match=message):
    Mean(Claims(**claims))({}, *arrays(**sizes), **demands)


def test_another_input_at_the_keys_is_cross_attention():
  x, y = jnp.ones((2, 5, 6)), jnp.zeros((2, 5, 6))
  with pytest.raises(Unsupported, match="cross-attention"):
    Mean(Claims(cross=False))({}, *arrays(), x=x, y=y)
  assert Mean(Claims(cross=False))({}, *arrays(), x=x, y=x).shape == (2, 5, 4, 2)
  assert Mean(Claims(cross=False))({}, *arrays(), x=x).shape == (2, 5, 4, 2)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda q, k, v: (q[0], k, v), "q must have 4 axes"),
    (lambda q, k, v: (q[:1], k, v), "batch sizes differ"),
    (lambda q, k, v: (q, k, v[:, :4]), "must agree in length and heads"),
    (lambda q, k, v: (q, k[..., :2], v), "must have one width, not 3 and 2"),
    (lambda q, k, v: (q[:, :, :3], k[:, :, :2], v[:, :, :2]), "3 query heads are not a multiple of 2"),
    (lambda q, k, v: (None, k, v), "q must be given"),
  ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    Mean()({}, *change(*arrays()))


def test_a_projection_that_is_not_read_must_be_none():
  with pytest.raises(ValueError, match="reads the projections '': q must be None"):
    Reader()({}, *arrays(), x=jnp.ones((2, 5, 6)))
  with pytest.raises(ValueError, match="reads the layer's input: pass x"):
    Reader()({}, None, None, None)


def test_losses_come_beside_the_output():
  x = jnp.ones((2, 5, 6))
  attended = Reader().with_aux({}, None, None, None, Call(x=x))
  np.testing.assert_array_equal(attended.out, 2.0 * x)
  assert set(attended.losses) == {"penalty"}
  assert Mean().with_aux({}, *arrays(), Call()).losses == {}


def test_the_output_has_the_dtype_of_the_values():
  q, k, v = arrays()
  assert Mean()({}, q, k, v.astype(jnp.bfloat16)).dtype == jnp.bfloat16
  assert logits_dtype(v.astype(jnp.bfloat16)) == jnp.float32
  assert logits_dtype(v) == jnp.float32


@pytest.mark.parametrize(
  ("claims", "mask", "message"),
  [
    ({"decode": False}, CAUSAL, "Mean cannot decode step by step$"),
    ({"decode": False, "per_query": False}, CAUSAL, "each of its rows depends on the other queries"),
    ({}, Mask(), "is causal: pass a mask with causal=True"),
    (
      {"masks": EVERY_MASK},
      Mask(causal=True, kv_valid=jnp.ones((2, 5), bool)),
      "'kv_valid'; padding goes into lengths=",
    ),
    ({"masks": frozenset({"causal"})}, Mask(causal=True, window=2), "does not take the mask constraint 'window'"),
  ],
)
def test_decoding_that_is_not_claimed_is_refused_by_name(claims, mask, message):
  variant = Mean(Claims(**{"masks": frozenset({"causal"})} | claims))
  state = variant.init_state(2, Dims(6, 4, 4, 3, 2, 5), jnp.float32)
  with pytest.raises(Unsupported, match=message):
    variant.extend({}, state, *arrays(), mask=mask)


def test_lengths_have_one_axis():
  with pytest.raises(ValueError, match=r"lengths must have shape \(B,\)"):
    check_extend(Mean(Claims(masks=EVERY_MASK)), CAUSAL, jnp.ones((2, 1), int))


def test_a_variant_is_hashable_and_equal_to_its_like():
  assert hash(Mean(Claims(bias=True))) == hash(Mean(Claims(bias=True)))
  assert Mean(Claims(bias=True)) == Mean(Claims(bias=True)) != Mean()
