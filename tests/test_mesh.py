import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from attention_lab import mesh as meshes
from attention_lab.config import Config, MeshConfig, ModelConfig, OptimizerConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM


@pytest.fixture
def cube():
  return meshes.make_mesh(MeshConfig(2, 2, 2))


def test_data_zero_takes_the_devices_that_are_left():
  assert dict(meshes.make_mesh(MeshConfig(0, 2, 2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
  assert dict(meshes.make_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
  assert meshes.make_mesh(MeshConfig(), jax.devices()[:3]).size == 3


def test_a_smaller_product_takes_the_first_devices_and_axes_are_automatic():
  mesh = meshes.make_mesh(MeshConfig(1, 2, 1))
  assert list(mesh.devices.flat) == jax.devices()[:2]
  assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
  "sizes, message",
  [
    ((4, 2, 2), "data=4 × --config.mesh.fsdp=2 × --config.mesh.tensor=2 needs 16 devices and there are 8"),
    ((0, 3, 1), "--config.mesh.fsdp=3 × --config.mesh.tensor=1 needs a multiple of 3 devices and there are 8"),
    ((0, 4, 4), "needs a multiple of 16 devices and there are 8"),
    ((-1, 1, 1), "--config.mesh.data=-1 is less than 0"),
    ((1, 0, 1), "--config.mesh.fsdp=0 is less than 1"),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused_with_the_numbers(sizes, message):
  with pytest.raises(ValueError, match=r"^--config\.mesh") as error:
    meshes.make_mesh(MeshConfig(*sizes))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "config, message",
  [
    (Config(model=ModelConfig(heads=3)), "--config.model.heads=3 cannot be split over --config.mesh.tensor=2"),
    (Config(model=ModelConfig(kv_heads=1)), "--config.model.kv_heads=1 cannot be split over --config.mesh.tensor=2"),
    (Config(batch=6), "--config.batch=6 cannot be split over data 2 × fsdp 2 devices: take a multiple of 4"),
    (Config(batch=12, optimizer=OptimizerConfig(accumulate=2)), "in 2 micro-batches cannot be split"),
  ],
)
def test_heads_and_batches_that_do_not_divide_are_refused_by_name(config, message, cube):
  with pytest.raises(ValueError, match="take a multiple") as error:
    meshes.check(config, cube)
  assert message in str(error.value)
  meshes.check(Config(), cube)


@pytest.mark.parametrize(
  "path, shape, spec",
  [
    ("layers/0/attention/query/kernel", (8, 4, 6), P("fsdp", "tensor", None)),
    ("layers/0/attention/value/bias", (4, 6), P("tensor", "fsdp")),
    ("layers/0/attention/out/kernel", (4, 6, 8), P("tensor", None, "fsdp")),
    ("layers/0/attention/params/fixed/per_head/slopes", (4,), P("tensor")),
    ("layers/0/mlp/up/kernel", (8, 32), P("fsdp", "tensor")),
    ("layers/0/mlp/down/kernel", (32, 8), P("tensor", "fsdp")),
    ("embedding", (512, 8), P("tensor", "fsdp")),
    ("layers/0/norm/scale", (8,), P(None)),
    ("layers/0/attention/params/anything", (6, 10), P(None, "fsdp")),
    ("layers/0/mlp/up/kernel", (7, 9), P(None, None)),
    ("embedding", (511, 8), P(None, "fsdp")),
    ("step", (), P()),
  ],
)
def test_a_path_and_a_shape_decide_where_an_array_lies(path, shape, spec, cube):
  assert meshes.partition_spec(path, shape, cube) == spec


def test_moments_lie_as_their_parameters_and_seeds_stay_whole(cube):
  params = {"mlp": {"up": {"kernel": jnp.zeros((8, 32))}}}
  moments = meshes.shardings(optax.adamw(1.0).init(params), cube)
  assert moments[0].mu["mlp"]["up"]["kernel"].spec == P("fsdp", "tensor")
  stacked = {"mlp": {"up": {"kernel": jnp.zeros((3, 8, 32))}}}
  assert meshes.shardings(stacked, cube, has_seed_axis=True)["mlp"]["up"]["kernel"].spec == P(None, "fsdp", "tensor")
  assert meshes.batch_sharding(cube).spec == P(("data", "fsdp"))
  assert meshes.batch_sharding(cube, has_seed_axis=True).spec == P(None, ("data", "fsdp"))


def test_the_rules_find_the_heads_mlp_and_embedding_of_a_real_model(cube):
  config = ModelConfig(attention="alibi", layers=1, heads=4, width=16)
  model = functional(lambda key: TransformerLM(config, 32, 8, key=key))
  params = jax.eval_shape(model.init, jax.random.key(0))
  split = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, sharding in jax.tree_util.tree_leaves_with_path(meshes.shardings(params, cube))
    if "tensor" in sharding.spec
  }
  for end in ("query/kernel", "key/kernel", "value/kernel", "out/kernel", "up/kernel", "down/kernel", "embedding"):
    assert any(path.endswith(end) for path in split), f"no {end} is split over tensor"
  assert any("per_head" in path for path in split)
