"""Pages that are made when the documentation is built: one for each variant, each suite and each package.

A hook of mkdocs. Variants come from their modules (equation, fields), from the certificates kept in the repository and
from the kept tables; suites from their reports; packages from their docstrings, by mkdocstrings.
"""

import dataclasses
import functools
import inspect
import pathlib
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import attention_lab
from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.certify import battery, certified
from attention_lab.compare.report import tables
from attention_lab.compare.schedule import row_spec
from attention_lab.results import records

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
MAPS = "assets/maps"  # folder of the maps that `experiments.visualize` draws, a file for each variant
SUITES = ("recall", "mechanisms", "vision", "language", "long_range", "default")
PICTURES = (".png", ".svg")
FLAGS = {
  "bias": "additive bias",
  "cross": "cross-attention",
  "decode": "decoding",
  "supports_gqa": "grouped heads (K < N)",
  "per_query": "each query on its own",
  "encodes_positions": "tells positions apart",
}
POWERS = {0: "1", 1: "T", 2: "T²", 3: "T³"}


class Standing(NamedTuple):
  """One row of a kept table in which a variant takes part."""

  suite: str
  task: str
  row: str
  score: str
  rank: str
  verdict: str


def on_config(config: MkDocsConfig) -> MkDocsConfig:
  """Adds the generated pages to the navigation."""
  pages = {
    "Variants": [{kind: [{name: f"variants/{name}.md"} for name in names]} for kind, names in kinds().items()],
    "Results": [{name: f"results/{name}.md"} for name in SUITES],
    "API": [{name.removeprefix("attention_lab."): f"api/{name}.md"} for name in packages()],
  }
  for section in config.nav or []:
    for title in section.keys() & pages.keys():
      section[title] += pages[title]
  return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Makes the pages and copies the pictures that they show."""
  contents: dict[str, str | bytes] = {f"variants/{name}.md": variant_page(name) for name in battery.cases()}
  for name in SUITES:
    contents[f"results/{name}.md"] = suite_page(name)
    for path in (RESULTS / name).rglob("*"):
      if path.suffix in PICTURES:
        contents[f"results/{path.relative_to(RESULTS)}"] = path.read_bytes()
  contents |= {f"api/{name}.md": package_page(name) for name in packages()}
  for address, content in contents.items():
    files.append(File.generated(config, address, content=content))
  return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
  """Links the table of variants with the pages of the variants; composed layers have none."""
  if page.file.src_uri != "variants/index.md":
    return markdown
  names = "|".join(battery.cases())
  return re.sub(rf"^\| `({names})((?:\([^`>]*)?)` \|", r"| [`\1\2`](\1.md) |", markdown, flags=re.MULTILINE)


def variant_page(name: str) -> str:
  """The page of one variant: equation, fields, map, how to call it, certificate, and where it stands."""
  case = battery.cases()[name]
  variant = spec.parse(case.SPECS[0])
  metadata = battery.metadata(variant)
  title, _, body = (inspect.getdoc(inspect.getmodule(type(variant))) or "").partition("\n")
  parts = [
    f"# {name}",
    title,
    body.strip("\n"),
    _picture(name, case.SPECS[0]),
    _fields(type(variant)),
    _usage(variant, case.SPECS[0]),
    _claims(metadata),
    _certificates(case.SPECS),
    _standings(name),
  ]
  return "\n\n".join(filter(None, parts))


def suite_page(name: str) -> str:
  """The kept report of a suite, its pictures beside it."""
  text = (RESULTS / name / "report.md").read_text(encoding="utf-8")
  text = re.sub(r"\]\((?!https?:|#|/)([^)]+\.(?:png|svg))\)", rf"]({name}/\1)", text)
  text = text.replace("<details>", '<details markdown="1">')
  command = "python -m experiments.compare" + ("" if name == "default" else f" --suite={name}")
  title, _, rest = text.partition("\n")
  return f"# {name}\n\n{title.lstrip('# ')}. The command: `{command}`; rows: `experiments/results/{name}`.\n{rest}"


def package_page(name: str) -> str:
  """What mkdocstrings is to show of a package: its face and every module of it."""
  names = [name, *modules(name)]
  return f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in names) + "\n"


def kinds() -> dict[str, list[str]]:
  """The names of the variants by the kind of map that they claim."""
  groups: dict[str, list[str]] = {"Exact softmax": [], "Other maps, quadratic": [], "Linear in time": []}
  for name, case in battery.cases().items():
    claims = spec.parse(case.SPECS[0]).claims()
    linear = claims.time_exponent == 1
    kind = "Linear in time" if linear else "Exact softmax" if claims.exactness == "exact" else "Other maps, quadratic"
    groups[kind].append(name)
  return groups


@functools.cache
def packages() -> list[str]:
  """The packages whose modules have API pages; variants have pages of their own."""
  infos = pkgutil.walk_packages(attention_lab.__path__, f"{attention_lab.__name__}.")
  names = [info.name for info in infos if info.ispkg and not info.name.endswith((".variants", ".cases"))]
  return [attention_lab.__name__, *names]


def modules(package: str) -> Iterator[str]:
  """The modules of a package, without those of packages below it."""
  path = ROOT / package.replace(".", "/")
  for info in pkgutil.iter_modules([str(path)], f"{package}."):
    if not info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
      yield info.name


def _fields(kind: type[Attention]) -> str:
  """The hyper-parameters of a variant with defaults and comments, as a table."""
  comments = _comments(kind)
  lines = [
    f"| `{field.name}` | `{field.default!r}` | {comments.get(field.name, '')} |"
    for field in dataclasses.fields(kind)
    if field.default is not dataclasses.MISSING
  ]
  return "\n".join(["## Fields", "", "| field | default | what it is |", "|---|---|---|", *lines]) if lines else ""


def _comments(kind: type) -> dict[str, str]:
  """The comments behind the fields of a class and of those that it extends."""
  comments: dict[str, str] = {}
  for base in reversed(kind.__mro__[:-1]):
    if base.__module__.startswith("attention_lab"):
      source = textwrap.dedent(inspect.getsource(base))
      for line in source.splitlines():
        match = re.match(r"  (\w+): [^=]+= .*?  # (.*)", line)
        if match:
          comments[match[1]] = match[2].replace("|", r"\|")
  return comments


def _picture(name: str, text: str) -> str:
  path = ROOT / "docs" / MAPS / f"{name}.png"
  if not path.exists():
    return ""
  return (
    f"## Map\n\n![Attention map of {name}](../{MAPS}/{name}.png){{ width=320 }}\n\nThe first head of `{text}`, freshly "
    "initialised, on a sequence that repeats after eight tokens: rows are queries, columns are keys."
  )


def _usage(variant: Attention, text: str) -> str:
  claims, letters = variant.claims(), variant.projections
  shapes = {"q": "2, 10, 4, 8", "k": "2, 10, 4, 8", "v": "2, 10, 4, 8"}
  arrays = [f"{letter} = jnp.ones(({shapes[letter]}))" for letter in "qkv" if letter in letters]
  call = ", ".join(letter if letter in letters else "None" for letter in "qkv")
  mask = ", mask=CAUSAL" if claims.requires_causal else ""
  lines = [
    "import jax",
    "import jax.numpy as jnp",
    "",
    f"from attention_lab.attention import {'CAUSAL, ' if mask else ''}Dims, spec",
    "",
    f'variant = spec.parse("{text}")',
    "params = variant.init(jax.random.key(0), Dims(model=32, heads=4, kv_heads=4, head=8, value=8, max_len=10))",
    *arrays,
    "x = jnp.ones((2, 10, 32))  # the layer's input",
    f"out = variant(params, {call}, x=x{mask})",
  ]
  code = "\n".join(lines)
  task = "language_modeling" if "causal" in claims.masks else "image_classification"
  train = f"python -m experiments.{task} --attention='{text}'"
  layer = (
    f" The layer of its paper is `published({text})`: `{variant.published.replace('self', text)}`."
    if variant.published
    else ""
  )
  return f"## Call it\n\n```python\n{code}\n```\n\nTrain with it: `{train}`.{layer}"


def _claims(metadata: dict[str, Any]) -> str:
  honoured = ", ".join(f"`{name}`" for name in metadata["masks"]) or "none"
  lines = [f"| masks | {honoured}{' (causal only)' if metadata['requires_causal'] else ''} |"]
  lines += [f"| {label} | {'yes' if metadata[name] else 'no'} |" for name, label in FLAGS.items()]
  state = POWERS[metadata["state_exponent"]] if metadata["decode"] else "no decoding"
  costs = f"{POWERS[metadata['time_exponent']]}, {POWERS[metadata['memory_exponent']]}, {state}"
  lines += [f"| exactness | {metadata['exactness']} |", f"| time, temporaries, decoding state grow as | {costs} |"]
  return "\n".join(["## Claims", "", "| claim | |", "|---|---|", *lines])


def _certificates(specs: tuple[str, ...]) -> str:
  """The proofs that the kept certificates list."""
  parts = ["## Certificate"]
  for text in specs:
    proofs = certified.proofs(text)
    lines = [f"| {claim} | {detail} |" for claim, detail in proofs.items()]
    head = f"`{text}`: {len(proofs)} claims proved."
    parts.append("\n".join([f'??? note "{head}"', "", "    | claim | examined |", "    |---|---|"]))
    parts[-1] += "\n" + textwrap.indent("\n".join(lines), "    ")
  return "\n\n".join(parts)


def _standings(name: str) -> str:
  rows = [standing for standing in standings() if name in _variants(standing.row)]
  if not rows:
    return ""
  head = "| suite | task | row | score, mean ± 95 % | place | verdict |"
  lines = ["## Where it stands", "", head, "|---|---|---|---|---|---|"]
  for row in rows:
    text = row.row.replace("|", r"\|")
    suite = f"[{row.suite}](../results/{row.suite}.md)"
    lines.append(f"| {suite} | {row.task} | `{text}` | {row.score} | {row.rank} | {row.verdict} |")
  return "\n".join(lines)


@functools.cache
def standings() -> tuple[Standing, ...]:
  """Every scored row of the kept tables."""
  result = []
  for suite in SUITES:
    for table in tables.build(records.read(RESULTS / suite / "results.jsonl").rows):
      scored = table.scored
      for rank, entry in enumerate(scored, 1):
        interval = entry.interval
        half = "" if interval.half is None else f" ± {interval.half:.3f}"
        score = f"{interval.mean:.3f}{half} {table.primary}"
        result.append(Standing(suite, table.task, entry.attention, score, f"{rank} of {len(scored)}", entry.standing))
  return tuple(result)


@functools.cache
def _variants(row: str) -> frozenset[str]:
  """The names of the variants in the spec of a row, in any layer and head."""
  layers = spec.layers(row_spec.split(row)[0], 64)
  parts = [layer.parts if isinstance(layer, HeadMixture) else ((1, layer),) for layer in layers]
  return frozenset(type(variant).__module__.rpartition(".")[2] for heads in parts for _, variant in heads)
