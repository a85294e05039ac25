"""What stands side by side computes the same."""

import importlib.util

import jax
import numpy as np
import pytest

from attention_lab.attention import spec
from attention_lab.benchmark import peers
from attention_lab.benchmark.program import Case
from attention_lab.benchmark.variant_program import compile_variant

TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra [peers]")
CASE = Case("forward", 24, 2, 4, 2, 8, "float32", True)


def output(program, case):
  sample = program.start(case.inputs())
  sample.reset()
  return np.asarray(sample.run())


@pytest.mark.parametrize("mode, causal", [("forward", True), ("forward", False), ("decode", True)])
@pytest.mark.parametrize("name", ["jax_dpa", pytest.param("torch_sdpa", marks=TORCH)])
def test_an_exact_peer_gives_what_softmax_gives(name, mode, causal):
  case = CASE._replace(mode=mode, causal=causal)
  ours = output(compile_variant(spec.parse("softmax"), case), case)
  theirs = output(peers.compile_peer(name, case), case)
  np.testing.assert_allclose(ours, theirs if name == "jax_dpa" else np.swapaxes(theirs, 1, 2), atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["jax_dpa", pytest.param("torch_flex", marks=TORCH)])
def test_a_window_is_the_same_to_a_peer(name, causal):
  case = CASE._replace(causal=causal, window=5, kv_heads=4)
  ours = output(compile_variant(spec.parse("local(window=5)"), case._replace(window=0)), case)
  theirs = output(peers.compile_peer(name, case), case)
  np.testing.assert_allclose(output(compile_variant(spec.parse("softmax"), case), case), ours, atol=2e-6)
  np.testing.assert_allclose(ours, theirs if name == "jax_dpa" else np.swapaxes(theirs, 1, 2), atol=2e-6)


def test_training_gives_the_peers_gradients():
  case = CASE._replace(mode="train")
  samples = [p.start(case.inputs()) for p in (compile_variant(spec.parse("softmax"), case), *_dpa(case))]
  (ours, (_, gradients)), (theirs, (_, other)) = (sample.run() for sample in samples)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)
  for letter in "qkv":
    np.testing.assert_allclose(gradients[letter], other[letter], atol=1e-4)


def test_only_a_variant_that_reads_the_layers_input_has_its_gradient():
  case = CASE._replace(mode="train", kv_heads=4)
  for name, letters in (("softmax", {"q", "k", "v"}), ("gated_delta", {"q", "k", "v", "x"}), ("mla", {"x"})):
    _, (params, inputs) = compile_variant(spec.parse(name), case).start(case.inputs()).run()
    assert set(inputs) == letters
    assert len(params) == len(jax.tree.leaves(spec.parse(name).init(jax.random.key(0), case.dims)))


@TORCH
def test_flex_attention_is_refused_by_name_where_it_cannot_be_measured():
  for mode, message in (("decode", "its mask is compiled for one length"), ("train", "no backward pass on a CPU")):
    with pytest.raises(ValueError, match=f"torch_flex .*{message}"):
      peers.compile_peer("torch_flex", CASE._replace(mode=mode))


def _dpa(case):
  return [peers.compile_peer("jax_dpa", case)]
