"""Proves what attention variants claim, each from the outside, and shows a counter-example where a claim fails.

    python -m experiments.certify --attention=all --quick               # every variant, minutes on a laptop
    python -m experiments.certify --attention='softmax;local(window=3)'  # two of them, in full
    python -m experiments.certify --attention='my_pkg.my_file:Mine(k=3)' --oracle=my_pkg.my_file:equation
    python -m experiments.certify --foreign=jax.nn:dot_product_attention  # any function f(q, k, v, mask=None)
    python -m experiments.certify --attention='local(window=3)' --mutate  # does the battery notice a slip of the hand?
    python -m experiments.certify --attention=all --record               # after a change: keeps the certificates

`--oracle` names the equation of a class of your own, in NumPy, for one example in float64: a function
`oracle(variant, params, example)` that returns `T N V`, as those of `attention_lab/certify/cases`. The example holds
q `T N H`, k `S K H`, v `S K V`, `readable` (`N T S`: what the masks leave), positions i and j, x, y and bias:

    def equation(variant, params, example):
      T, N, H = example.q.shape
      out = np.zeros((T, N, example.v.shape[2]))
      for t, n in np.ndindex(T, N):
        head = n * example.k.shape[1] // N
        read = np.flatnonzero(example.readable[n, t])
        weights = np.exp(example.k[read, head] @ example.q[t, n] / variant.k)
        out[t, n] = weights @ example.v[read, head] / max(weights.sum(), 1e-300)
      return out

Without one, nothing says that the class computes what its paper writes, and the certificate begins so.

Exit code 0: everything that could be examined is proved; 1: a claim fails; 2: bad usage. `--markdown` prints the
README's table of variants instead, `--demands` the matrix of demands. `--record` proves in full what has changed since
it was last recorded, a variant's sources, its case, the battery or the version of JAX, and writes the certificates
without a failure to `attention_lab/certify/certified.json`, each as soon as it is made; the two tables take unchanged
variants from there, unless `--json` or `--quick` asks for proofs. `--mutate` changes the variant's own file in
many small ways (`<` to `<=`, ±1, a dropped `where`, a swapped sign) and prints the share that the quick battery
kills, and every survivor; exit code 1 if it is below 90 %. Expected: no claim fails. It runs where JAX runs; the
claims about sharding take eight devices, which a CPU has here by itself.
"""

import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType

import jax
from absl import flags

from attention_lab import cli, interrupts
from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.composed import Composed
from attention_lab.certify import battery, certified, foreign, mutation, report
from attention_lab.certify.finding import Certificate

_ATTENTION = flags.DEFINE_string("attention", "all", "Variants to certify, separated by ';', or all.")
_JSON = flags.DEFINE_string("json", "", "File to write the certificates to, as JSON.")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print the table of variants in Markdown, and nothing else.")
_DEMANDS = flags.DEFINE_bool(
  "demands", False, "Print the matrix of demands and variants in Markdown, and nothing else."
)
_ORACLE = flags.DEFINE_string(
  "oracle", "", "The equation of the one variant that is named, as my_pkg.my_file:function; empty = that of its case."
)
_FOREIGN = flags.DEFINE_string(
  "foreign", "", "A function f(q, k, v, mask=None) of JAX, NumPy or torch to certify, as my_pkg.my_file:f."
)
_CLAIMS = flags.DEFINE_string(
  "claims", "", "What --foreign claims, as in \"supports_gqa=True, exactness='other'\", beside its attribute `claims`."
)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes that share the variants.", lower_bound=1)
_QUICK = flags.DEFINE_bool(
  "quick", False, "Fewer shapes and draws, forward only where the full battery has gradients too."
)
_RECORD = flags.DEFINE_bool(
  "record", False, "Keep the full certificates in the repository; what has not changed since is not proved again."
)
_MUTATE = flags.DEFINE_bool("mutate", False, "Examine mutants of each variant's file instead, by the quick battery.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Mutants of each file, evenly chosen; 0 = all.", lower_bound=0)


def main() -> int:
  interrupts.explain(
    lambda: "certificates that are made are recorded: the same command goes on" if _RECORD.value else "nothing is kept"
  )
  jax.config.update("jax_num_cpu_devices", 8)
  folder = pathlib.Path(_JSON.value).parent
  if _JSON.value and not folder.is_dir():
    raise ValueError(f"--json={_JSON.value}: there is no folder {folder}: make it first")
  if _LIMIT.value and not _MUTATE.value:
    raise ValueError(f"--limit={_LIMIT.value} is a number of mutants: add --mutate")
  if _MUTATE.value and (_QUICK.value or _MARKDOWN.value or _DEMANDS.value):
    raise ValueError(
      "--mutate has its own table and takes the quick battery: leave --markdown, --demands and --quick out"
    )
  if _RECORD.value and (_QUICK.value or _MUTATE.value):
    raise ValueError("--record keeps what the full battery proves: leave --quick and --mutate out")
  if _ORACLE.value and (_RECORD.value or _MUTATE.value):
    raise ValueError(f"--oracle={_ORACLE.value} is for a certificate: leave --record and --mutate out")
  if _CLAIMS.value and not _FOREIGN.value:
    raise ValueError(f"--claims={_CLAIMS.value} are those of a function: add --foreign; a class has them in claims()")
  if _FOREIGN.value and (flags.FLAGS["attention"].present or _RECORD.value or _MUTATE.value):
    raise ValueError(f"--foreign={_FOREIGN.value} is certified alone: leave --attention, --record and --mutate out")
  return _mutate() if _MUTATE.value else _certify()


def _certify() -> int:
  tables = [table for wanted, table in ((_MARKDOWN, report.markdown), (_DEMANDS, report.demands)) if wanted.value]
  variants = [variant for variant, _ in _wanted(_ATTENTION.value)]
  if _ORACLE.value:
    if len(variants) != 1:
      raise ValueError(f"--oracle={_ORACLE.value} is the equation of one variant: name it by --attention")
    battery.oracle_case(_ORACLE.value)
  certificates = list(battery.without_case()) if _ATTENTION.value == "all" and not _FOREIGN.value else []
  for certificate, unchanged in _certificates(variants, from_file=bool(tables or _RECORD.value)):
    certificates.append(certificate)
    summary = f"{certificate.spec}: {report.summary(certificate)}" + (
      ", kept: nothing has changed" if unchanged else ""
    )
    if tables:
      print(f"{len(certificates)} of {len(variants)}: {summary}", file=sys.stderr, flush=True)
    else:
      print(summary if unchanged else report.text(certificate), end="\n\n", flush=True)
  failed = [certificate.spec for certificate in certificates if certificate.failures]
  print("\n\n".join(table(certificates) for table in tables) or _verdict(len(certificates), failed))
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(report.to_json(certificates) + "\n")
  for name in failed if tables else ():
    print(f"error: a claim fails in {name}", file=sys.stderr)
  return 1 if failed else 0


def _certificates(variants: list[Attention], from_file: bool) -> Iterator[tuple[Certificate, bool]]:
  """(certificate, whether it is one that was kept) of each variant, those that are proved now recorded if wanted."""
  recorder = certified.Recorder(variants) if _RECORD.value else None
  from_file = from_file and not (_JSON.value or _QUICK.value or _ORACLE.value)
  recorded = [certified.current(variant) if from_file else None for variant in variants]
  changed = [spec.to_string(variant) for variant, record in zip(variants, recorded, strict=True) if record is None]
  proved = battery.certificates(changed, _QUICK.value, _WORKERS.value, _ORACLE.value)
  for record in recorded:
    certificate = record or next(proved)
    if recorder and record is None:
      recorder.add(certificate)
    yield certificate, record is not None


def _verdict(count: int, failed: list[str]) -> str:
  verdict = f"a claim fails in {', '.join(failed)}" if failed else "no claim fails"
  return f"{count} certified: {verdict}"


def _wanted(rows: str) -> list[tuple[Attention, ModuleType | None]]:
  """(variant, case) of all rows, parsed before the first proof: a typing error costs no time."""
  if _FOREIGN.value:
    return [(foreign.Foreign(_FOREIGN.value, _CLAIMS.value), None)]
  if rows == "all":
    return [(spec.parse(row), case) for row, case in battery.specs()]
  return [(variant, battery.case_of(variant)) for variant in map(spec.parse, spec.rows(rows))]


def _mutate() -> int:
  rows, scores = _wanted(_ATTENTION.value), []
  if _ATTENTION.value == "all":
    rows = [(variant, case) for variant, case in rows if not isinstance(variant, Composed)]
  for score in mutation.scores(rows, _LIMIT.value, _WORKERS.value):
    scores.append(score)
    print(mutation.text(score), end="\n\n", flush=True)
  print(mutation.verdict(scores))
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(mutation.to_json(scores) + "\n")
  return 0 if mutation.share(scores) >= mutation.SHARE else 1


if __name__ == "__main__":
  cli.run(main)
