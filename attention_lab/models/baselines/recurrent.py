"""Long short-term memory over a text, in one direction or both, with and without attention.

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, whose bias starts at 1 (Jozefowicz et al.
2015, http://proceedings.mlr.press/v37/jozefowicz15.html); both directions: Graves and Schmidhuber 2005.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.base import Unsupported
from attention_lab.attention.mask import FULL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.models import config_checks
from attention_lab.models.baselines import ATTENTION, check
from attention_lab.models.classifier import ClassifierConfig, TextClassifier
from attention_lab.models.layers import Linear, Output, dropout, named_key
from attention_lab.models.multi_head_attention import MultiHeadAttention
from attention_lab.models.pooling import mean

POOLINGS = ("last", "mean", "attention")
GATES = 4  # input, forget, candidate, output
FORGET = 1


class Cell(nnx.Module):
  """c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c'), with (i, f, g, o) = W·x + U·h + b; gates and c in float32."""

  def __init__(self, inputs: int, units: int, *, key: PRNGKeyArray):
    self.units = units
    self.input = Linear((inputs,), (GATES, units), key=named_key(key, "input"))
    self.input.bias = nnx.Param(jnp.zeros((GATES, units)).at[FORGET].set(1.0))
    start = jax.random.normal(named_key(key, "recurrent"), (units, GATES * units))
    self.recurrent = nnx.Param(units**-0.5 * start)

  def __call__(
    self, x: Float[Array, "B T I"], valid: Bool[Array, "B T"], *, backward: bool = False
  ) -> tuple[Float[Array, "B T U"], Float[Array, "B U"]]:
    """The states h after each token, and the last one: of the first token if `backward`.

    At a token that is not valid the state stays as it was; before the first valid one it is 0.
    """
    B, kernel = x.shape[0], self.recurrent[...].astype(x.dtype)

    def step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
      (hidden, cell), (gates, real) = carry, now
      gates = gates + jnp.dot(hidden, kernel, preferred_element_type=jnp.float32).reshape(B, GATES, -1)
      enter, forget, candidate, leave = (gates[:, gate] for gate in range(GATES))
      new = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
      shown = (jax.nn.sigmoid(leave) * jnp.tanh(new)).astype(hidden.dtype)
      hidden, cell = jnp.where(real, shown, hidden), jnp.where(real, new, cell)
      return (hidden, cell), hidden

    start = jnp.zeros((B, self.units), x.dtype), jnp.zeros((B, self.units))
    rows = jnp.swapaxes(self.input(x, jnp.float32), 0, 1), valid.T[:, :, None]
    (last, _), states = jax.lax.scan(step, start, rows, reverse=backward)
    return jnp.swapaxes(states, 0, 1), last


class Lstm(TextClassifier):
  """Logits over C classes from `config.layers` recurrences of D units, each over the states of the one before.

  pooling: last (auto means it too), the state after the last valid token; mean, of the states; attention: the last
  state is the one query of `config.attention`, and all states are keys and values; with c what it reads and h the
  query, the classes are told from tanh(W·[c; h]) (Luong et al. 2015, https://arxiv.org/abs/1508.04025, equation 5).
  `additive` is Bahdanau's score, `bilinear` Luong's. Dropout on the vectors of tokens and on the output of each layer.

  Of the config it reads, besides what every baseline does, types, layers and pooling, and for attention the variant,
  its heads and their width. Raises ValueError for other fields that are set, and for a spec of several layers;
  Unsupported
  for a variant that reads no other sequence than its queries'.
  """

  name = "lstm"
  directions: tuple[bool, ...] = (False,)  # of the recurrences of a layer: whether it runs from the end

  def build(self, config: ClassifierConfig, *, key: PRNGKeyArray, mesh: Mesh | None) -> int:
    pooling = config_checks.choose(f"{config_checks.FLAG}.pooling", config.pooling, ("auto", *POOLINGS))
    self.pooling = "last" if pooling == "auto" else pooling
    attends = self.pooling == "attention"
    reads = {"types", "layers", "pooling"} | (ATTENTION if attends else set())
    check(config, f"{self.name} with pooling={self.pooling}", reads)
    self.dropout, self.dtype = config.dropout, config_checks.dtype(config)
    width = len(self.directions) * config.width
    layers_key = named_key(key, "layers")
    inputs = [config.width] + [width] * (config.layers - 1)
    self.layers = nnx.List(
      [self._layer(size, config.width, named_key(layers_key, str(i))) for i, size in enumerate(inputs)]
    )
    if attends:
      variant, dims = _reader(config, width, self.max_len)
      self.attention = MultiHeadAttention(variant, dims, key=named_key(key, "attention"), mesh=mesh)
      self.combine = Linear((2 * width,), (width,), key=named_key(key, "combine"))
    return width

  def pooled(self, x: Array, valid: Array | None, key: PRNGKeyArray | None) -> Output:
    real = jnp.ones(x.shape[:2], bool) if valid is None else valid
    states = dropout(x, self.dropout, named_key(key, "tokens"))
    last = states[:, 0]
    for i, layer in enumerate(self.layers):
      outputs = [layer[str(n)](states, real, backward=backward) for n, backward in enumerate(self.directions)]
      states, last = (jnp.concatenate(parts, axis=-1) for parts in zip(*outputs, strict=True))
      states = dropout(states, self.dropout, named_key(key, f"layer_{i}"))
    last = dropout(last, self.dropout, named_key(key, "last"))
    if self.pooling == "attention":
      return self._read(last, states, valid, named_key(key, "attention"))
    return Output(mean(states, valid) if self.pooling == "mean" else last, {}, {})

  def _layer(self, inputs: int, units: int, key: PRNGKeyArray) -> nnx.Dict:
    names = [str(n) for n in range(len(self.directions))]
    return nnx.Dict({name: Cell(inputs, units, key=named_key(key, name)) for name in names})

  def _read(self, last: Array, states: Array, valid: Array | None, key: PRNGKeyArray | None) -> Output:
    places = jnp.arange(states.shape[1], dtype=jnp.int32)[None]
    ends = places[:, -1:] if valid is None else jnp.max(jnp.where(valid, places, 0), axis=1, keepdims=True)
    mask = FULL if valid is None else Mask(kv_valid=valid)
    read = self.attention(last[:, None], y=states, mask=mask, positions=Positions(q=ends), key=key)
    both = jnp.concatenate([read.out[:, 0], last], axis=-1)
    stats = {f"layer_0/{name}": value for name, value in read.stats.items()}
    return Output(jnp.tanh(self.combine(both)), read.losses, stats)


class BiLstm(Lstm):
  """An `Lstm` whose every layer runs in both directions, D units each; the last states are those at the two ends."""

  name = "bilstm"
  directions = (False, True)


def _reader(config: ClassifierConfig, width: int, max_len: int) -> tuple:
  """The one variant that is named, and sizes for states of this width."""
  spec.parse(config.attention)  # one layer, or ValueError
  config = dataclasses.replace(config, width=width, layers=1)
  variant = config_checks.variants(config)[0]
  if not variant.claims().cross:
    why = "a last state that reads all states is cross-attention, which it does not claim"
    raise Unsupported(
      f"{config_checks.FLAG}.attention={spec.to_string(variant)} with pooling=attention: {why}; give additive"
    )
  return variant, config_checks.dims(config, max_len)
