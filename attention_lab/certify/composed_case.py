"""The case of composed layers: a mechanism, and around it the parts that papers give their layers.

Before it: a short causal convolution of queries, keys and values (Dao & Gu 2024, Mamba-2, arXiv 2405.21060; Yang et al.
2024, DeltaNet, arXiv 2406.06484; Yang et al. 2025, Gated DeltaNet, arXiv 2412.06464) and a norm of queries and keys
(Dehghani et al. 2023, arXiv 2302.05442). Behind it: a skip from the values (D of Mamba-2), a norm of the output (Sun et
al. 2023, RetNet, arXiv 2307.08621) and a gate out of the layer's input (Qiu et al. 2025, arXiv 2505.06708). Each acts
in the order in which it stands. The mechanism's oracle is that of its case, and what may be read is what the call says.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from attention_lab.attention.base import Attention
from attention_lab.attention.composed import Composed
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.attention.layer_parts import Conv, Gate, Nope, Norm, QkNorm, Skip
from attention_lab.certify.cases import case_of
from attention_lab.certify.oracle import Example, kv_head
from attention_lab.certify.oracle_shared import logistic

SPECS = (
  "conv(3)>softmax",
  "conv(width=3, activation='none')>linear(chunk=4)",
  "conv(3)>local(window=3)>skip",
  "conv(3)>(linear(chunk=4)+softmax)>norm>gate",
  "qk_norm>softmax>gate(activation='sigmoid', per='head')",
  "published(ssd(chunk=4))",
  "published(delta_rule(chunk=4))",
  "published(gated_delta(chunk=4))",
  "published(gated_linear(chunk=4))",
  "published(retention(chunk=4))",
)
LIMITS = (
  ("conv(width=1)>softmax", "conv(width=0)>softmax"),
  ("conv(activation='none')>softmax", "conv(activation='sigmoid')>softmax"),
  ("qk_norm(kind='l2')>softmax", "qk_norm(kind='l1')>softmax"),
  ("softmax>norm(over='layer')", "softmax>norm(over='batch')"),
  ("softmax>gate(activation='sigmoid')", "softmax>gate(activation='none')"),
  ("softmax>gate(per='head')", "softmax>gate(per='layer')"),
)
EPSILON = 1e-6  # inside each root


def mechanisms(variant: Attention) -> tuple[Attention, ...]:
  """The variants that a composed layer or a mixture of heads is made of; any other variant alone."""
  if isinstance(variant, Composed):
    return mechanisms(variant.mechanism)
  if isinstance(variant, HeadMixture):
    return tuple(inner for _, part in variant.parts for inner in mechanisms(part))
  return (variant,)


def oracle(variant: Any, params: dict, example: Example) -> Float[np.ndarray, "T N V"]:
  """The layer's output, [T, N, V].

  params: {"mechanism": its own} and, where the part stands, {"conv": {"q": [N, H, W], "k": [K, H, W], "v": [K, V, W]}}
  with index 0 of W for the token itself; {"qk_norm": {"q": [H], "k": [H]}} of the kind rms; {"skip": {"scale": [N]}};
  {"norm": {"gain": [V]}}, over the layer [N, V]; {"gate": {"kernel": [D, N, V]}}, per head [D, N, 1].
  """
  if variant.rotation is not None:
    raise ValueError("this oracle turns no queries and keys: leave the rotation out")
  for part in variant.before:
    example = _before(part, params, example)
  out = _attended(variant.mechanism, params["mechanism"], example)
  for part in variant.after:
    out = _behind(part, params, example, out)
  return out


def _before(part: Any, params: dict, example: Example) -> Example:
  """The example with the queries, keys and values that leave the part."""
  match part:
    case Conv():
      return _convolved(part, params["conv"], example)
    case QkNorm():
      gains = params["qk_norm"] if part.kind == "rms" else {}
      q, k, every_q = (
        _normed(array, gains.get(name)) for name, array in (("q", example.q), ("k", example.k), ("q", example.tokens.q))
      )
      return dataclasses.replace(example, q=q, k=k, tokens=dataclasses.replace(example.tokens, q=every_q))
    case Nope():
      return example
  raise ValueError(f"this oracle knows no part {part} before a mechanism")


def _behind(part: Any, params: dict, example: Example, out: np.ndarray) -> np.ndarray:
  """The output that leaves the part."""
  match part:
    case Skip():
      return _skipped(params["skip"]["scale"], example, out)
    case Norm():
      return _output_normed(part.over, params["norm"]["gain"], out)
    case Gate():
      return _gated(part, params["gate"]["kernel"], example, out)
  raise ValueError(f"this oracle knows no part {part} behind a mechanism")


def _convolved(part: Any, filters: dict, example: Example) -> Example:
  """y_t = act(Σ_s w_s a_{t−s}) of queries, keys and values, each channel of each head with its own w."""
  tokens = example.tokens
  hidden = _hidden_keys(example)
  q = _convolution(part, tokens.q, filters["q"], tokens.q_segments, hidden)
  k = _convolution(part, example.k, filters["k"], tokens.k_segments, hidden)
  v = _convolution(part, example.v, filters["v"], tokens.k_segments, hidden)
  return dataclasses.replace(example, q=q[tokens.rows], k=k, v=v, tokens=dataclasses.replace(tokens, q=q))


def _convolution(
  part: Any, a: np.ndarray, filters: np.ndarray, segments: np.ndarray | None, hidden: Sequence[bool]
) -> np.ndarray:
  """One array [L, heads, width]; a token reads back to the start of its run of one segment number, hidden ones as 0."""
  out = np.zeros(a.shape)
  for t, n, c in np.ndindex(*a.shape):
    total = filters[n, c, 0] * a[t, n, c]
    for s in range(1, min(part.width, t + 1)):
      if segments is not None and segments[t - s] != segments[t]:
        break
      if not hidden[t - s]:
        total += filters[n, c, s] * a[t - s, n, c]
    out[t, n, c] = _act(part.activation, total)
  return out


def _act(activation: str, x: float) -> float:
  """The nonlinearity of a convolution or a gate."""
  return {"none": x, "silu": x * logistic(x), "sigmoid": logistic(x)}[activation]


def _hidden_keys(example: Example) -> list[bool]:
  """Whether each token is padding as a key, or an empty slot."""
  valid = example.tokens.kv_valid
  return [bool(example.j[s] == -1 or (valid is not None and not valid[s])) for s in range(len(example.j))]


def _normed(array: np.ndarray, gain: np.ndarray | None) -> np.ndarray:
  """Each vector of [L, heads, H] over its root mean square, times the gain; without gain, over its length."""
  out = np.zeros(array.shape)
  for t, n in np.ndindex(*array.shape[:2]):
    squares = sum(float(u * u) for u in array[t, n])
    for c in range(array.shape[2]):
      if gain is None:
        out[t, n, c] = array[t, n, c] / math.sqrt(squares + EPSILON)
      else:
        out[t, n, c] = array[t, n, c] / math.sqrt(squares / array.shape[2] + EPSILON) * gain[c]
  return out


def _attended(mechanism: Attention, params: dict, example: Example) -> np.ndarray:
  """The mechanism by its case; a mixture's heads in blocks of its counts' proportion, each block by its variant."""
  if not isinstance(mechanism, HeadMixture):
    case: Any = case_of(mechanism)
    return case.oracle(mechanism, params, example)
  total = sum(count for count, _ in mechanism.parts)
  outs, start = [], 0
  for index, (count, part) in enumerate(mechanism.parts):
    stop = start + count
    block = _heads(example, start / total, stop / total)
    outs.append(_attended(part, params.get(str(index), {}), block))
    start = stop
  return np.concatenate(outs, axis=1)


def _heads(example: Example, start: float, stop: float) -> Example:
  """The example of some of the query heads and of the key heads that these read, as shares of all."""
  N, K = example.q.shape[1], example.k.shape[1]
  queries, keys = (slice(round(start * heads), round(stop * heads)) for heads in (N, K))
  return dataclasses.replace(
    example,
    q=example.q[:, queries],
    k=example.k[:, keys],
    v=example.v[:, keys],
    readable=example.readable[queries],
    bias=None if example.bias is None else example.bias[queries],
  )


def _skipped(scales: np.ndarray, example: Example, out: np.ndarray) -> np.ndarray:
  """out_t + scale v_t of each head, v as it comes to the mechanism; nothing for a token that is padding."""
  hidden, valid = _hidden_keys(example), example.tokens.q_valid
  total = np.array(out)
  for row, t in enumerate(example.tokens.rows):
    if hidden[t] or (valid is not None and not valid[t]):
      continue
    for n in range(out.shape[1]):
      total[row, n] += scales[n] * example.v[t, kv_head(example, n)]
  return total


def _output_normed(over: str, gain: np.ndarray, out: np.ndarray) -> np.ndarray:
  """Each head's output over its root mean square, or each token's over that of all its heads, times the gain."""
  total = np.zeros(out.shape)
  for t, n, c in np.ndindex(*out.shape):
    together = out[t, n] if over == "head" else out[t].reshape(-1)
    root = math.sqrt(sum(float(u * u) for u in together) / len(together) + EPSILON)
    total[t, n, c] = out[t, n, c] / root * (gain[c] if over == "head" else gain[n, c])
  return total


def _gated(part: Any, kernel: np.ndarray, example: Example, out: np.ndarray) -> np.ndarray:
  """out_t times act(x_t · kernel), x the layer's input at the query."""
  total = np.zeros(out.shape)
  for t, n, c in np.ndindex(*out.shape):
    column = kernel[:, n, c if part.per == "channel" else 0]
    total[t, n, c] = out[t, n, c] * _act(part.activation, float(example.x[t] @ column))
  return total
