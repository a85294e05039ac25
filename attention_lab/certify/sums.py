"""Long sums: what is added up over many keys is kept in more than 16 bits."""

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import CAUSAL
from attention_lab.certify.finding import same
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest

KEYS, HEAVY = 1000, 64  # keys of a sum, and how many of them, in front, have most of its weight
BFLOAT16 = 2.0**-6  # largest error in bfloat16, relative to the largest output
GAPS = (3.0, 4.5, 6.0, 7.5)  # by which the logits of the other keys are lower, one for each head, at a scale of 1/√4


def bfloat16(subject: VariantUnderTest) -> str:
  """Over 1,000 keys, bfloat16 is near float32: sums of many small numbers are kept in more than 16 bits."""
  shape = subject.shape(B=1, T=KEYS, S=KEYS, H=4)
  low = jax.tree.map(lambda array: jnp.asarray(array, jnp.bfloat16), _long_tail(subject.inputs(shape), shape))
  call = Call(CAUSAL if "causal" in subject.claims.masks else subject.mask())
  params = subject.params(shape.dims())
  out = subject.forward(params, low, call)
  exact = subject.forward(params, jax.tree.map(lambda array: np.asarray(array, np.float32), low), call)
  error = same(out, exact, f"bfloat16 against float32 over {KEYS} keys", tolerance=BFLOAT16, shape=shape, seed=0)
  return f"error {error:.0e} <= {BFLOAT16:.0e}"


def _long_tail(inputs: Inputs, shape: Shape) -> Inputs:
  """Few keys with values near 1 and most of the weight, then many with little weight each and values near −1."""
  tail = np.arange(shape.S) >= HEAVY
  q, k, v = inputs[:3]
  if q is not None and k is not None:
    gaps = np.resize(GAPS, shape.K)
    q, k = 0.3 * q, 0.3 * k
    q[..., 0], k[..., 0] = 2.0, np.where(tail[None, :, None], -gaps, 0.0)
  if v is not None:
    v = 0.1 * v + np.where(tail, -1.0, 1.0)[None, :, None, None]
  return inputs._replace(q=q, k=k, v=v)


PROOFS = {"bfloat16 over 1,000 keys": bfloat16}
