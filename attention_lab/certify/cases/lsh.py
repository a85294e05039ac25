"""Locality-sensitive hashing: a query reads what falls into one bucket with it.

Kitaev et al. 2020 (Reformer, arXiv 2001.04451), §2: shared queries and keys, k_j = q_j / √(‖q_j‖² + 10⁻⁶); in round r
the bucket of a query is argmax([qR_r, −qR_r]), the first where several are largest. A readable key is read if it shares
the query's bucket in some round; the query's own position only if there is no other such key. Buckets are exact sets,
never cut into chunks.
"""

import dataclasses
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, softmax_mean
from attention_lab.certify.oracle_shared import inner, off_normal, scaled_logit, unit

SPECS = ("lsh(hashes=2, buckets=4)",)
LIMITS = (
  ("lsh(hashes=1)", "lsh(hashes=0)"),
  ("lsh(buckets=2)", "lsh(buckets=0)"),
  ("lsh(buckets=2)", "lsh(buckets=3)"),
)


def bucket(q: np.ndarray, rotation: np.ndarray) -> int:
  """The bucket of one query, with rotation [H, buckets // 2]."""
  turned = [inner(q, rotation[:, c]) for c in range(rotation.shape[1])]
  scores = turned + [-score for score in turned]
  return scores.index(max(scores))


def fixed_law(variant: Any, leaves: dict, dims: Any) -> str:
  """§2: a rotation of its own for each round, of standard normal numbers."""
  drawn, shape = np.asarray(leaves["rotations"], float), (variant.hashes, dims.head, variant.buckets // 2)
  if drawn.shape[1:] != shape:
    return f"rotations have the shape {drawn.shape[1:]}, not {shape}"
  return off_normal("rotations", drawn)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"fixed": {"rotations": [hashes, H, buckets // 2]}}, [T, N, V].

  Raises ValueError where not all rows of q are given, since the keys are made of them.
  """
  heads, queries, keys = example.readable.shape
  if queries != keys:
    raise ValueError(f"lsh makes its {keys} keys out of the queries: give all {keys} rows of q, not {queries}")
  rotations, shape = params["fixed"]["rotations"], (keys, heads)
  buckets = {(s, n): [bucket(example.q[s, n], rotation) for rotation in rotations] for s, n in np.ndindex(*shape)}
  read = np.zeros_like(example.readable)
  for n, t in np.ndindex(heads, queries):
    near = [s for s in range(keys) if any(a == b for a, b in zip(buckets[t, n], buckets[s, n], strict=True))]
    near = [s for s in near if example.readable[n, t, s]]
    others = [s for s in near if example.j[s] != example.i[t]]
    read[n, t, others or near] = True
  units = np.array([[unit(example.q[s, n]) for n in range(heads)] for s in range(keys)])
  hashed = dataclasses.replace(example, k=units, readable=read)
  return softmax_mean(hashed, scaled_logit(variant, hashed))
