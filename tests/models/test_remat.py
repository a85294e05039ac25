"""What layers compute again instead of keeping changes no number, only the memory that a step takes."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import pytest

from attention_lab import compiled
from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig, ModelConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM

KEY = jax.random.key(0)
SMALL = ModelConfig(attention="softmax|linear", layers=2, width=16, heads=2, dropout=0.3)


def language_model(config, length=12):
  return functional(lambda key: TransformerLM(config, 11, length, key=key))


def gradients_of(model):
  """A function (params, tokens, dropout key) -> (loss, gradients)."""

  def loss(params, tokens, key):
    output = model.apply(params, tokens, key=key)
    return jnp.mean(output.logits**2) + sum(output.losses.values(), 0.0)

  return jax.value_and_grad(loss)


@pytest.mark.parametrize("attention", ["softmax|linear", "adaptive_span(max_span=4,ramp=2,penalty=0.1)"])
def test_losses_and_gradients_are_those_without_it_dropout_included(attention, filled):
  tokens = jnp.array([[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
  config = dataclasses.replace(SMALL, attention=attention)
  params = filled(language_model(config))
  gradients = {}
  for remat in ("none", "dots", "full"):
    model = language_model(dataclasses.replace(config, remat=remat))
    gradients[remat] = jax.jit(gradients_of(model))(params, tokens, KEY)
  chex.assert_trees_all_close(gradients["dots"], gradients["none"], rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(gradients["full"], gradients["none"], rtol=1e-5, atol=1e-6)


def test_eight_devices_give_the_same_gradients_with_it(filled):
  mesh, tokens = meshes.make_mesh(MeshConfig(2, 2, 2)), jnp.tile(jnp.array([[1, 2, 3, 4, 5, 6]]), (4, 1))
  config = dataclasses.replace(SMALL, attention="softmax", layers=1, dropout=0.0, remat="dots")
  params = filled(language_model(config))
  split = functional(lambda key: TransformerLM(config, 11, 12, key=key, mesh=mesh))
  placed = jax.device_put((params, tokens), (meshes.shardings(params, mesh), meshes.batch_sharding(mesh)))
  expected = jax.jit(gradients_of(language_model(dataclasses.replace(config, remat="none"))))(params, tokens, None)
  chex.assert_trees_all_close(jax.jit(gradients_of(split))(*placed, None), expected, rtol=1e-5, atol=1e-6)


def test_the_less_is_kept_the_fewer_temporaries_and_the_more_arithmetic():
  """Three layers at 256 tokens; nothing is run."""
  config = ModelConfig(layers=3, width=64, heads=2)
  tokens, temporaries, flops = jax.ShapeDtypeStruct((4, 256), jnp.int32), [], []
  for remat in ("none", "dots", "full"):
    model = language_model(dataclasses.replace(config, remat=remat), length=256)
    step, params = gradients_of(model), jax.eval_shape(model.init, KEY)
    temporaries.append(compiled.memory(jax.jit(step).lower(params, tokens, None).compile())["temporaries"])
    flops.append(compiled.flops(lambda params, tokens, step=step: step(params, tokens, None), params, tokens))
  assert temporaries[0] > 1.6 * temporaries[1] > 1.6 * 1.2 * temporaries[2]
  assert flops[0] < flops[1] < flops[2]


def test_an_unknown_policy_is_refused_by_name_with_the_nearest():
  with pytest.raises(ValueError, match=r"--config.model.remat=dot is unknown, did you mean 'dots'\?; choices: none, "):
    language_model(dataclasses.replace(SMALL, remat="dot")).init(KEY)
