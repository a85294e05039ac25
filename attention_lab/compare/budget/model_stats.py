"""Statistics of a row's model before it is trained: bytes of decoding state, receptive field, the training step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool

from attention_lab import mesh as meshes
from attention_lab.attention.base import Attention, Params, Unsupported
from attention_lab.attention.families.gridded import OnGrid
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.attention.positions import Positions
from attention_lab.config import Config
from attention_lab.data import pipeline
from attention_lab.models.transformer import Transformer
from attention_lab.tasks.base import Task
from attention_lab.train import optimizer
from attention_lab.train import state as states
from attention_lab.train.cost import batch_tokens
from attention_lab.train.step import make_step

BOOKKEEPING = ("length", "positions")  # leaves of a decoding state that count and place its tokens
EXACT_UP_TO = 1024  # tokens up to which every position's receptive field is followed
SAMPLED = 256  # number of positions that are followed in longer sequences, evenly spaced, the ends among them


class Stack(NamedTuple):
  """The layers of a model that are one stack of attention layers, and the sequence they read."""

  name: str  # its attribute in the model: decoder (causal) or encoder
  variants: tuple[Attention, ...]
  length: int  # T, class and register tokens counted
  positions: Positions
  shared: bool  # one set of parameters for all layers


class TrainingStep(NamedTuple):
  """A training step and the shapes that it is called with; nothing is compiled or computed."""

  step: Any  # jitted (state, batch) -> (state, metrics)
  state: states.State  # ShapeDtypeStructs
  batch: dict[str, jax.ShapeDtypeStruct]  # of the first batch
  tokens: int  # of the first batch, all seeds together


def state_bytes(task: Task) -> int | None:
  """The bytes that decoding keeps for one sequence of the task's length, all layers together, from shapes alone.

  They are keys and values, memories and whatever a variant keeps beside them; not the counters of tokens and the
  positions of a cache's slots. A window's cache has all its slots, however short the sequence. None where the model
  does not decode, or where one of its variants does not.
  """

  def start(key: jax.Array) -> Any:
    module: Any = task.model.build(key)
    decoder = _stacks(module).get("decoder")
    if not hasattr(module, "init_state") or decoder is None:
      return None
    return module.init_state(1) if all(variant.claims().decode for variant in decoder.variants) else None

  try:
    state = jax.eval_shape(start, jax.random.key(0))
  except Unsupported:
    return None
  if state is None:
    return None
  leaves = jax.tree_util.tree_leaves_with_path(state)
  content = [leaf for path, leaf in leaves if getattr(path[-1], "key", "") not in BOOKKEEPING]
  return sum(leaf.size * leaf.dtype.itemsize for leaf in content)


def receptive_field(task: Task, prefix: int = 0) -> int | None:
  """The number of positions that the output at one position can depend on through all layers, the most of any.

  It follows from the patterns that variants declare (`Attention.pattern`), composed over layers, with the residual
  connection, so that a position sees itself; heads of several variants see what any of them sees. Blocks that are
  drawn are those of seed 0. Of more than `EXACT_UP_TO` tokens `SAMPLED` positions are followed. Padding, segments and
  pooling are left out.

  Args:
    task: with the row's model.
    prefix: tokens at the start of a causal sequence that read each other.

  Returns:
    At least 1 and at most T; None where the model is not one stack of attention layers.
  """
  stack = _stack(task)
  if stack is None:
    return None
  T, fixed = stack.length, _fixed_parameters(task, stack)
  i, j = jnp.arange(T, dtype=jnp.int32)[:, None], jnp.arange(T, dtype=jnp.int32)[None]
  readable = (j <= i) | (j < prefix) if stack.name == "decoder" else None
  read: dict[Any, np.ndarray | None] = {}
  keys = [variant if fixed[layer] is None else layer for layer, variant in enumerate(stack.variants)]
  for layer, key in enumerate(keys):
    if key not in read:
      read[key] = _read(stack.variants[layer], fixed[layer] or {}, i, j, stack.positions)
  if any(pattern is None for pattern in read.values()):
    return T
  maps = {key: _with_itself(pattern, readable) for key, pattern in read.items() if pattern is not None}
  return _widest([maps[key] for key in keys], T)


def training_step(task: Task, config: Config, mesh: Mesh, seeds: Sequence[int] | None = None) -> TrainingStep:
  """The training step of a run of these seeds (default: `config.seed`), and its shapes; one batch a seed is read."""
  seeds = (config.seed,) if seeds is None else tuple(seeds)
  has_seed_axis = states.has_seed_axis(seeds)
  update = optimizer.make_optimizer(config.optimizer, config.steps, task.model.undecayed)
  sharding = meshes.batch_sharding(mesh, has_seed_axis=has_seed_axis)
  arrays = next(pipeline.train_batches(task.source.splits["train"], config.batch, seeds[0]))

  def shape(array: np.ndarray) -> jax.ShapeDtypeStruct:
    sizes = (len(seeds), *array.shape) if has_seed_axis else array.shape
    return jax.ShapeDtypeStruct(sizes, jax.dtypes.canonicalize_dtype(array.dtype), sharding=sharding)

  batch = {name: shape(array) for name, array in arrays.items()}
  tokens = batch_tokens(jax.device_put(arrays), config, task.tokens_per_example, task.source.splits["train"])
  step = make_step(task, update, config, mesh, has_seed_axis=has_seed_axis)
  return TrainingStep(step, states.abstract_state(task, update, seeds, mesh), batch, tokens * len(seeds))


def _stacks(module: Any) -> dict[str, Transformer]:
  held = vars(module) if hasattr(module, "__dict__") else {}
  return {name: part for name, part in held.items() if isinstance(part, Transformer)}


def _stack(task: Task) -> Stack | None:
  """The one stack of the task's model, from its structure alone."""
  stacks: list[Stack] = []

  def look(key: jax.Array) -> None:
    module: Any = task.model.build(key)
    for name, part in _stacks(module).items():
      positions = Positions(grid=getattr(module, "grid", None), extra=getattr(module, "extra", 0))
      stacks.append(Stack(name, part.variants, part.dims.max_len, positions, len(part.layers) < len(part.variants)))

  jax.eval_shape(look, jax.random.key(0))
  return stacks[0] if len(stacks) == 1 else None


def _fixed_parameters(task: Task, stack: Stack) -> list[Params | None]:
  """The variant's parameters of each layer where some are fixed, so that its pattern may depend on them; else None."""

  def of_layers(params: Params) -> dict[int, Params]:
    layers = params[stack.name]["layers"]
    picked = {
      n: layers[str(0 if stack.shared else n)]["attention"].get("params", {}) for n in range(len(stack.variants))
    }
    return {n: tree for n, tree in picked.items() if _has_fixed(tree)}

  def init() -> dict[int, Params]:
    return of_layers(task.model.init(states.init_key(jnp.uint32(0))))

  limited = [any(not _unlimited(part) for _, part in _parts(variant)) for variant in stack.variants]
  if not all(limited) or not jax.eval_shape(init):
    return [None] * len(stack.variants)
  drawn = jax.jit(init, compiler_options=states.FAST_COMPILE)()
  return [drawn.get(n) for n in range(len(stack.variants))]


def _has_fixed(tree: Any) -> bool:
  return isinstance(tree, dict) and ("fixed" in tree or any(map(_has_fixed, tree.values())))


def _parts(variant: Attention) -> list[tuple[str, Attention]]:
  """The variants of a layer's heads, each with the name of its parameters, "" where it has all heads."""
  if isinstance(variant, HeadMixture):
    return [(str(n), part) for n, (_, part) in enumerate(variant.parts)]
  return [("", variant)]


def _unlimited(part: Attention) -> bool:
  return type(part).pattern is Attention.pattern


def _read(variant: Attention, fixed: Params, i: Any, j: Any, positions: Positions) -> Bool[np.ndarray, "T T"] | None:
  """The keys that each query of a layer can read through any of its heads, True where it can; None = every one."""
  shape, union = (i.size, j.size), np.zeros((i.size, j.size), bool)
  for name, part in _parts(variant):
    params = fixed.get(name, {}) if name else fixed
    if isinstance(part, OnGrid) and type(part).pattern is OnGrid.pattern:
      readable: Any = part.mask_mod(params, i, j, positions)
    else:
      readable = part.pattern(params, i, j)
    if readable is True:
      return None
    pattern = np.asarray(readable)
    union |= pattern.reshape(-1, *shape).any(axis=0) if pattern.ndim > 2 else np.broadcast_to(pattern, shape)
  return union


def _with_itself(read: np.ndarray, readable: Any) -> np.ndarray:
  pattern = read if readable is None else read & np.asarray(readable)
  return (pattern | np.eye(len(pattern), dtype=bool)).astype(np.float32)


def _widest(layers: Sequence[np.ndarray], T: int) -> int:
  """The most positions that one output depends on; layers: `T T`, from the first to the last."""
  followed = np.arange(T) if T <= EXACT_UP_TO else np.unique(np.linspace(0, T - 1, SAMPLED).round().astype(int))
  reached = np.eye(T, dtype=np.float32)[followed]
  for read in reversed(layers):
    reached = (reached @ read > 0).astype(np.float32)
  return int(reached.sum(axis=1).max())
