"""Variants against packages of one mechanism each."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")

from agreement import agree
from exchange import heads, mask, normal, run
from layers import flat, ready, split, tensors


def test_performer_equals_performer_pytorch_without_its_epsilon():
  package = pytest.importorskip("performer_pytorch.performer_pytorch", reason="needs the extra peers")
  qkv, directions = heads(1), package.gaussian_orthogonal_random_matrix(16, 8)
  q, k, v = tensors(qkv)
  q, k = (
    package.softmax_kernel(array, projection_matrix=directions, is_query=is_query, eps=0.0)
    for array, is_query in ((q, True), (k, False))
  )
  theirs = package.linear_attention(q, k, v).transpose(1, 2)
  ours = run("performer(features=16)", qkv, params={"fixed": {"directions": directions.numpy()}})
  agree("performer", "performer_pytorch", ours, theirs)


def test_relu_equals_the_generalized_kernel_of_performer_pytorch():
  package = pytest.importorskip("performer_pytorch.performer_pytorch", reason="needs the extra peers")
  qkv = heads(2)
  q, k, v = tensors(qkv)
  q, k = (package.generalized_kernel(array, projection_matrix=None, kernel_epsilon=0.0) for array in (q, k))
  agree("relu", "performer_pytorch", run("relu", qkv), package.linear_attention(q, k, v).transpose(1, 2))


def test_linformer_equals_linformer():
  package = pytest.importorskip("linformer", reason="needs the extra peers")
  layer, x = ready(package.LinformerSelfAttention(32, 12, k=5, heads=4), "to_out"), normal(3, 2, 12, 32)
  qkv = split(x, layer.to_q, layer.to_k, layer.to_v, count=4)
  params = {"keys": layer.proj_k.detach().numpy(), "values": layer.proj_v.detach().numpy()}
  ours = run("linformer(rank=5)", qkv, params=params)
  agree("linformer", "linformer.LinformerSelfAttention", flat(ours), layer(torch.from_numpy(x)).detach())


@pytest.mark.parametrize("causal", [False, True])
def test_local_equals_local_attention_with_exact_windows(causal):
  package = pytest.importorskip("local_attention", reason="needs the extra peers")
  qkv, layer = heads(4), package.LocalAttention(4, causal=causal, exact_windowsize=True, use_rotary_pos_emb=False)
  theirs = layer(*(array.contiguous() for array in tensors(qkv))).transpose(1, 2)
  agree("local", "local_attention.LocalAttention", run("local(window=5)", qkv, mask=mask(causal=causal)), theirs)


def test_additive_equals_keras_additive_attention():
  os.environ.setdefault("KERAS_BACKEND", "torch")
  keras = pytest.importorskip("keras", reason="needs the extra peers")
  qkv, vectors, theirs = heads(5), normal(6, 4, 8), []
  for n in range(4):
    layer = keras.layers.AdditiveAttention()
    inputs = [qkv.q[:, :, n], qkv.v[:, :, n], qkv.k[:, :, n]]
    layer.build([array.shape for array in inputs])
    layer.set_weights([vectors[n]])
    theirs.append(keras.ops.convert_to_numpy(layer(inputs)))
  ours = run("additive", qkv, params={"per_head": {"vector": vectors}})
  agree("additive", "keras.layers.AdditiveAttention", ours, np.stack(theirs, axis=2))
