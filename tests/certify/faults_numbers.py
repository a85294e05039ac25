"""Faults of arithmetic, gradients, cost, settings and many devices."""

import jax
import jax.numpy as jnp
from faults import Bite, Dense, case_of, frozen

from attention_lab.attention.base import EVERY_MASK, Attention, Claims
from attention_lab.attention.variants.alibi import Alibi
from attention_lab.attention.variants.linear import Linear
from attention_lab.attention.variants.performer import Performer
from attention_lab.attention.variants.softmax import Softmax
from attention_lab.attention.variants.top_k import TopK
from attention_lab.attention.variants.variational import Variational
from attention_lab.certify import battery, oracle


@frozen
class BatchMaximum(Dense):
  """Shifts logits by the largest of the whole batch: the same, until it underflows."""

  def weights(self, logits, readable):
    numerators = jnp.where(readable, jnp.exp(logits - jnp.max(logits)), 0.0)
    return numerators / jnp.maximum(numerators.sum(axis=-1, keepdims=True), 1e-30)


@frozen
class BatchNystrom(Attention):
  """Nyströmformer, its pseudo-inverse started from the largest norms of the whole batch."""

  def claims(self):
    return Claims(decode=False, supports_gqa=False, per_query=False, exactness="approximate", time_exponent=1)

  def attend(self, params, q, k, v, call):
    few_q, few_k = (jnp.stack([run.mean(axis=1) for run in jnp.array_split(a, 2, axis=1)], axis=1) for a in (q, k))
    pairs = ((q, few_k), (few_q, few_k), (few_q, k))
    spread, inner, gathered = (jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", *pair)) for pair in pairs)
    z = jnp.swapaxes(inner, -1, -2) / (jnp.max(inner.sum(axis=-2)) * jnp.max(inner.sum(axis=-1)))
    identity = jnp.eye(2)[None, None]
    for _ in range(4):
      az = inner @ z
      z = z @ (13.0 * identity - az @ (15.0 * identity - az @ (7.0 * identity - az))) / 4.0
    return jnp.einsum("bnts,bsnv->btnv", spread @ z @ gathered, v)


@frozen
class Undefined(Dense):
  """Divides 0 by 0 where nothing is readable."""

  def weights(self, logits, readable):
    return jax.nn.softmax(jnp.where(readable, logits, -jnp.inf))


@frozen
class Unshifted(Dense):
  """Exponentials of bare logits."""

  def weights(self, logits, readable):
    numerators = jnp.where(readable, jnp.exp(logits), 0.0)
    return numerators / jnp.maximum(numerators.sum(axis=-1, keepdims=True), 1e-30)


@frozen
class AddedBias(Dense):
  """Adds the bias in float32: of a row of −10⁹ no logit is left."""

  def claims(self):
    return Claims(masks=EVERY_MASK, bias=True)

  def attend(self, params, q, k, v, call):
    k, v = (jnp.repeat(array, q.shape[2] // array.shape[2], axis=2) for array in (k, v))
    logits = jnp.einsum("btnh,bsnh->bnts", q, k) + self.bias(call)
    readable = call.mask.dense(q.shape[1], k.shape[1], call.positions)
    return jnp.einsum("bnts,bsnv->btnv", self.weights(logits, readable), v)

  def bias(self, call):
    return 0.0 if call.bias is None else jnp.where(call.bias == -jnp.inf, -1e30, call.bias)


@frozen
class InfiniteBias(AddedBias):
  """Subtracts −∞ from −∞ in a row of −∞."""

  def bias(self, call):
    return 0.0 if call.bias is None else call.bias


@frozen
class BoundedBias(AddedBias):
  """Bounds the bias, so that a hidden key is read a little."""

  def bias(self, call):
    return 0.0 if call.bias is None else jnp.maximum(call.bias, -5.0)


@frozen
class HiddenPairs(Variational):
  """Takes pairs that a bias hides into its divergence."""

  def attend(self, params, q, k, v, call):
    attended = super().attend(params, q, k, v, call)
    bias = 0.0 if call.bias is None else jnp.mean(jnp.maximum(call.bias, -100.0))
    return attended._replace(losses={"kl": attended.losses["kl"] - bias})


@frozen
class Elu(Linear):
  """elu(x) + 1 as it is written: exp(x) − 1 + 1."""

  def feature_maps(self, params, q, k, v):
    return jax.nn.elu(q) + 1.0, jax.nn.elu(k) + 1.0


@frozen
class Coarse(Dense):
  """Keeps its weights in 8 bits where the values have 16."""

  def attend(self, params, q, k, v, call):
    q = q.astype(jnp.float8_e4m3fn).astype(q.dtype) if v.dtype == jnp.bfloat16 else q
    return super().attend(params, q, k, v, call)


@frozen
class Traced(Dense):
  """Another scale once compiled."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q * 1.01 if isinstance(q, jax.core.Tracer) else q, k, v, call)


@frozen
class Dropping(Dense):
  """Drops outputs whenever it is offered a key, and does not say so."""

  def attend(self, params, q, k, v, call):
    out = super().attend(params, q, k, v, call)
    return out if call.key is None else out * jax.random.bernoulli(call.key, 0.5, out.shape)


@frozen
class Dividing(Attention):
  """Linear attention with a decay that is divided out again: fast, until e^(−Σ) overflows."""

  def claims(self):
    return Claims(
      masks=frozenset({"causal"}),
      requires_causal=True,
      cross=False,
      supports_gqa=False,
      exactness="other",
      time_exponent=1,
      state_exponent=0,
    )

  def init(self, key, dims):
    return {"rate": jnp.zeros(dims.heads)}

  def attend(self, params, q, k, v, call):
    decay = jnp.cumsum(jnp.broadcast_to(jax.nn.softplus(params["rate"]), q.shape[:3]), axis=1)[..., None]
    written = jnp.exp(decay)[..., None] * k[..., None] * v[..., None, :]
    return jnp.exp(-decay) * jnp.einsum("btnh,btnhv->btnv", q, jnp.cumsum(written, axis=1))


@frozen
class Stopped(Softmax):
  """The right output, and no gradient for the keys."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, jax.lax.stop_gradient(k), v, call)


@jax.custom_vjp
def _unheard(k):
  return k


_unheard.defvjp(lambda k: (k, None), lambda _, cotangent: (jnp.zeros_like(cotangent),))


@frozen
class StoppedBackward(Softmax):
  """A backward pass by hand that forgets the keys."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, _unheard(k), v, call)


@frozen
class Stuck(Performer):
  """As many features as were there at first, however many are asked for."""

  def init(self, key, dims):
    return Performer(features=8).init(key, dims)


@frozen
class Deaf(Dense):
  """Has a hyper-parameter and does not use it."""

  temperature: float = 1.0


@frozen
class Crooked(Dense):
  """A parameter for each head, of which there is one."""

  def init(self, key, dims):
    return {"per_head": {"scale": jnp.ones(1)}}


@frozen
class Lax(TopK):
  """Reads at least one key, and takes 0 for a number of keys."""

  def __post_init__(self):
    if self.k < 0:
      raise ValueError(f"k={self.k} must be at least 1 key")


@frozen
class Steep(Alibi):
  """Slopes that start at 1, where the paper's start at 2^(−8/N)."""

  def init(self, key, dims):
    slopes = 2.0 ** (-8.0 * jnp.arange(dims.heads) / dims.heads)
    return {"fixed": {"per_head": {"slopes": slopes}}}


@frozen
class Hidden(Variational):
  """Means its divergence over all pairs, those that are hidden too."""

  def attend(self, params, q, k, v, call):
    attended = super().attend(params, q, k, v, call)
    readable = jnp.mean(call.mask.dense(q.shape[1], k.shape[1], call.positions).astype(jnp.float32))
    return attended._replace(losses={"kl": attended.losses["kl"] * readable})


@frozen
class Cheap(Dense):
  """Quadratic, and says that it is linear."""

  def claims(self):
    return Claims(masks=EVERY_MASK, time_exponent=1)


@frozen
class Counting(Dense):
  """A factor for each head out of the number of heads, of which a device sees a part."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q / q.shape[2], k, v, call)


SOFTMAX, ALIBI, TOP_K, VARIATIONAL, LINEAR = (
  battery.cases()[name] for name in ("softmax", "alibi", "top_k", "variational", "linear")
)
ADDED_BIAS = case_of(
  lambda variant, params, example: oracle.softmax_mean(
    example, lambda n, t, s: oracle.dot(example, n, t, s) + oracle.bias(example, n, t, s)
  )
)
BITES = (
  Bite(BatchMaximum(), "examples are independent", "another example", "rows of the map sum to 1"),
  Bite(BatchNystrom(), "examples are independent", "another example", "class in the values"),
  Bite(BatchNystrom(), "heads are independent", "first key head"),
  Bite(Undefined(), "nothing readable gives zeros", "nan where 0"),
  Bite(Unshifted(), "finite under extremes", "not finite at q and k", "rows of the map sum to 1"),
  Bite(AddedBias(), "a bias of -inf hides keys", "a bias of -.*e", "equals its oracle", ADDED_BIAS),
  Bite(InfiniteBias(), "a bias of -inf hides keys", "gradient is not finite", "equals its oracle", ADDED_BIAS),
  Bite(BoundedBias(), "a bias of -inf hides keys", "a bias of -inf: .* is right", "equals its oracle", ADDED_BIAS),
  Bite(HiddenPairs(), "a bias of -inf hides keys", "the loss kl is", "equals its oracle", VARIATIONAL),
  Bite(Elu(chunk=4), "right at inputs of 100", "near -100", "equals its oracle", LINEAR),
  Bite(Coarse(), "bfloat16 is near float32", "error", "finite under extremes"),
  Bite(Traced(), "compiled equals eager", "compiled against eager", "rows of the map sum to 1"),
  Bite(Dropping(), "the same call twice", "claims random=False, and two keys", "honours causal"),
  Bite(Dividing(), "finite when gates are open or shut", "shifted by 30", "honours causal"),
  Bite(Dividing(), "finite at length 4096", "not finite at 4096", "finite under extremes", quick=False),
  Bite(Stopped(), "gradient equals its oracle's", "along .*k", "equals its oracle", SOFTMAX),
  Bite(StoppedBackward(), "gradient equals its oracle's", "along .*k", "equals its oracle", SOFTMAX),
  Bite(StoppedBackward(), "gradient equals differences in float64", "along a random direction", quick=False),
  Bite(Stuck(features=16, chunk=4), "error falls with its features", "the mean error is", "honours causal"),
  Bite(Deaf(), "every hyper-parameter acts", "'temperature' is accepted and ignored", "golden table"),
  Bite(Crooked(), "parameters keep the rules", "per_head/scale is per head", "golden table"),
  Bite(Lax(k=2), "illegal settings are refused", r"top_k\(k=0\) is accepted", "equals its oracle", TOP_K),
  Bite(Steep(), "fixed parameters are the paper's", r"slopes\[0\] is 1, not 0\.0039", "equals its oracle", ALIBI),
  Bite(Hidden(), "losses are the paper's", "the loss kl is .* under .'causal'", "equals its oracle", VARIATIONAL),
  Bite(Cheap(), "time in T", r"FLOPs grow as T\^(1.9|2)", "state in T"),
  Bite(Dense(), "memory in T", r"temporaries grow as T\^(1.9|2)", "time in T"),
  Bite(Counting(), "sharded equals unsharded", "on 8 devices against one"),
)
