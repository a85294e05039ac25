"""Text from a decoder: one prefill of prompts of unequal length, then one token at a time, all rows together."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.models.functional import Functional, Params
from attention_lab.models.transformer import State


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How the next token is drawn from the logits: scaled by the temperature, cut to top_k, then to top_p."""

  greedy: bool = False  # the likeliest token; temperature, top_k and top_p are then left at their defaults
  temperature: float = 1.0  # > 0
  top_k: int = 0  # only the k likeliest tokens; 0 = all
  top_p: float = 1.0  # only the likeliest tokens that together have this probability, in (0, 1]
  stop: int = -1  # the token after which a row ends; -1 = none

  def __post_init__(self):
    if self.greedy and (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
      raise ValueError("greedy takes the likeliest token: leave temperature, top_k and top_p out, or greedy")
    if not self.temperature > 0:
      raise ValueError(f"temperature={self.temperature} must be positive; give greedy=True for the likeliest token")
    if self.top_k < 0:
      raise ValueError(f"top_k={self.top_k} is negative; 0 means all tokens")
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p={self.top_p} must lie in (0, 1]; 1 means all tokens")


def generate(
  model: Functional,
  params: Params,
  prompts: Sequence[Int[np.ndarray, "_"]],
  steps: int,
  sampling: Sampling = Sampling(),
  key: PRNGKeyArray | None = None,
) -> list[Int[np.ndarray, "_"]]:
  """Continues each prompt by `steps` tokens, or up to and with the stop token; returns the new tokens.

  model: of a `TransformerLM`. Prompts may differ in length: they are padded on the right, and each row decodes at its
  own positions. A row's random bits depend on its number in the batch and on the step. Raises ValueError for an empty
  prompt, tokens outside the vocabulary, more tokens than the model's max_len, sampling without a key.
  """
  module = model.bind(params)
  lengths = _checked(prompts, steps, module.max_len, module.vocabulary)
  if key is None and not sampling.greedy:
    raise ValueError("sampling needs a key; give key= or greedy=True")
  key = jax.random.key(0) if key is None else key
  tokens = np.zeros((len(prompts), max(lengths)), np.int32)
  for row, prompt in zip(tokens, prompts, strict=True):
    row[: len(prompt)] = prompt
  state, logits = _prefill(model, params, tokens, np.asarray(lengths, np.int32))
  drawn, _ = _decode(model, steps, sampling, params, state, logits, key)
  rows = np.asarray(drawn)
  ends = [np.flatnonzero(row == sampling.stop) for row in rows]
  return [row[: end[0] + 1] if len(end) else row for row, end in zip(rows, ends, strict=True)]


def filtered(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
  """The logits, less the largest, over the temperature, −∞ where top_k or top_p cuts.

  The likeliest token always stays; of equally likely ones those of smaller ids do.
  """
  temperature = max(sampling.temperature, float(np.finfo(np.float32).tiny))
  logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature
  if not sampling.top_k and sampling.top_p == 1:
    return logits
  order = jnp.argsort(logits, axis=-1, stable=True, descending=True)
  rank = jnp.argsort(order, axis=-1)
  if sampling.top_k:
    logits = jnp.where(rank < sampling.top_k, logits, -jnp.inf)
  if sampling.top_p < 1:
    shares = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(shares, axis=-1) - shares  # the probability of likelier tokens
    logits = jnp.where(jnp.take_along_axis(before, rank, axis=-1) < sampling.top_p, logits, -jnp.inf)
  return logits


def _checked(prompts: Sequence[np.ndarray], steps: int, max_len: int, vocabulary: int) -> list[int]:
  """The prompts' lengths."""
  if not prompts or steps < 1:
    raise ValueError(f"{len(prompts)} prompts and {steps} steps: give at least one of each")
  for number, prompt in enumerate(prompts):
    if not len(prompt):
      raise ValueError(f"prompt {number} is empty; give it at least one token")
    if np.min(prompt) < 0 or np.max(prompt) >= vocabulary:
      raise ValueError(f"prompt {number} has a token outside the model's vocabulary of {vocabulary}")
    if len(prompt) + steps > max_len:
      limit = f"more than the {max_len} tokens that the model was built for"
      raise ValueError(f"prompt {number} has {len(prompt)} tokens, and with {steps} steps that is {limit}; give fewer")
  return [len(prompt) for prompt in prompts]


class _Carry(NamedTuple):
  step: Int[Array, ""]
  state: State
  logits: Float[Array, "B V"]
  tokens: Int[Array, "B steps"]
  done: Any  # bool [B]


@functools.partial(jax.jit, static_argnums=0)
def _prefill(model: Functional, params: Params, tokens: Array, lengths: Array) -> tuple[State, Array]:
  module = model.bind(params)
  return module.extend(tokens, module.init_state(tokens.shape[0]), lengths, last=True)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _decode(
  model: Functional, steps: int, sampling: Sampling, params: Params, state: State, logits: Array, key: Array
) -> tuple[Array, State]:
  """Tokens `B steps`, rows filled up with the stop token, and the state, which takes the place of the donated one."""
  module = model.bind(params)
  B = logits.shape[0]
  row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))

  def draw(step: Array, logits: Array) -> Array:
    if sampling.greedy:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, step)
    return jax.vmap(jax.random.categorical)(step_keys, filtered(logits, sampling)).astype(jnp.int32)

  def step(carry: _Carry) -> _Carry:
    token = jnp.where(carry.done, sampling.stop, draw(carry.step, carry.logits))
    tokens = jax.lax.dynamic_update_slice_in_dim(carry.tokens, token[:, None], carry.step, axis=1)
    done = carry.done | (token == sampling.stop)
    state, logits = module.extend(jnp.maximum(token, 0)[:, None], carry.state, last=True)
    return _Carry(carry.step + 1, state, logits, tokens, done)

  empty = jnp.full((B, steps), sampling.stop, jnp.int32)
  first = _Carry(jnp.zeros((), jnp.int32), state, logits, empty, jnp.zeros((B,), bool))
  last = jax.lax.while_loop(lambda c: (c.step < steps) & ~jnp.all(c.done), step, first)
  return last.tokens, last.state
