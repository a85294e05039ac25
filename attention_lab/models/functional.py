"""Modules as pure functions of a nested plain dict of arrays, which is what the train loop carries."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import PRNGKeyArray

Params = dict[str, Any]


class Undecayed(nnx.Param):
  """A parameter that weight decay leaves alone, though its name is no bias's or scale's and it has several axes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Functional:
  """`build(key) -> nnx.Module` as init, apply and bind; hashable by identity, so that it can be static in jit."""

  build: Callable[[PRNGKeyArray], nnx.Module]

  def init(self, key: PRNGKeyArray) -> Params:
    """Initial parameters: nested dicts with string keys, as the modules nest (items of a list: "0", "1", …)."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.split(self.build(key))[1])
    params: Params = {}
    for path, leaf in leaves:
      *folders, name = _names(path)
      functools.reduce(lambda tree, folder: tree.setdefault(folder, {}), folders, params)[name] = leaf
    return params

  def bind(self, params: Params) -> Any:
    """The module with these parameters, for calling its methods. Raises ValueError where the names do not fit."""
    graph, paths, structure, _ = self._structure
    leaves = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for problem, names in (("lack", set(paths) - set(leaves)), ("have an unknown", set(leaves) - set(paths))):
      if names:
        raise ValueError(f"these parameters {problem} '{'/'.join(min(names))}': they belong to another model")
    return nnx.merge(graph, structure.unflatten([leaves[path] for path in paths]))

  def apply(self, params: Params, *args: Any, **kwargs: Any) -> Any:
    """Calls the module with these parameters."""
    return self.bind(params)(*args, **kwargs)

  @property
  def undecayed(self) -> frozenset[str]:
    """The paths `layers/0/…` of the parameters that are `Undecayed`."""
    return self._structure[3]

  @functools.cached_property
  def _structure(self) -> tuple[Any, list[tuple[str, ...]], Any, frozenset[str]]:
    graphs: list[Any] = []

    def split() -> tuple[nnx.State, nnx.State]:
      module = self.build(jax.random.key(0))
      graph, state = nnx.split(module)
      graphs.append(graph)
      return state, nnx.state(module, Undecayed)

    whole, undecayed = jax.eval_shape(split)
    leaves, structure = jax.tree_util.tree_flatten_with_path(whole)
    paths = frozenset("/".join(_names(path)) for path, _ in jax.tree_util.tree_leaves_with_path(undecayed))
    return graphs[0], [_names(path) for path, _ in leaves], structure, paths


def functional(build: Callable[[PRNGKeyArray], nnx.Module]) -> Functional:
  """The pure functions of the module that `build` makes."""
  return Functional(build)


def _names(path: tuple) -> tuple[str, ...]:
  return tuple(str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey))
