"""Sparse normalisations against the package of their authors."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")
entmax = pytest.importorskip("entmax", reason="needs the extra peers")

from agreement import agree
from exchange import heads, mask, run

PEERS = {"sparsemax": ("entmax.sparsemax", entmax.sparsemax), "entmax": ("entmax.entmax15", entmax.entmax15)}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", PEERS)
def test_sparse_weights_equal_the_authors(name, causal):
  peer, normalise = PEERS[name]
  qkv = heads(1, T=40, H=4)
  q, k, v = (torch.from_numpy(array).transpose(1, 2) for array in qkv)
  logits = q @ k.transpose(2, 3) * 4**-0.5
  later = torch.ones(40, 40, dtype=torch.bool).triu(1) if causal else torch.zeros(40, 40, dtype=torch.bool)
  weights = normalise(logits.masked_fill(later, -1e4), dim=-1)
  assert (weights == 0).float().mean() > 0.3
  agree(name, peer, run(name, qkv, mask=mask(causal=causal)), (weights @ v).transpose(1, 2))
