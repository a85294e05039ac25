"""Which tokens a masked language model has to tell, and what it sees in their place."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the others stay as they are


def draw(
  key: PRNGKeyArray,
  tokens: Int[Array, "B T"],
  length: Int[Array, "B"],
  specials: tuple[int, ...],
  vocabulary: int,
  mask_id: int,
  rate: float = 0.15,
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
  """The tokens with some hidden, and which ones are to be told; a pure function of `key`.

  Of each row's first `length` tokens that are not in `specials`, ⌈rate · their number⌉ are chosen, all alike likely;
  of these 80 % become `mask_id`, 10 % any token of [0, vocabulary) that is not special, and 10 % stay. Devlin et al.
  2019 (https://arxiv.org/abs/1810.04805, section 3.1 and appendix A.1), who draw special tokens too. Raises ValueError
  for a rate outside (0, 1], or if all tokens are special.
  """
  special = sorted({*specials, mask_id})
  if not 0 < rate <= 1:
    raise ValueError(f"rate={rate} is not a share in (0, 1]")
  if special[-1] >= vocabulary or special[0] < 0 or len(special) >= vocabulary:
    raise ValueError(f"a vocabulary of {vocabulary} tokens, of which {special} are special, leaves none to draw from")
  order, kind, source = jax.random.split(key, 3)
  B, T = tokens.shape
  eligible = jnp.arange(T)[None] < length[:, None]
  for token in special:
    eligible &= tokens != token
  shares = np.ceil(np.arange(T + 1) * rate - 1e-9).astype(np.int32)  # by the number of eligible tokens, exactly
  scores = jnp.where(eligible, jax.random.uniform(order, (B, T)), 2.0)
  rank = jnp.argsort(jnp.argsort(scores, axis=1), axis=1)
  chosen = eligible & (rank < jnp.asarray(shares)[jnp.sum(eligible, axis=1)][:, None])
  drawn = jax.random.randint(source, (B, T), 0, vocabulary - len(special), tokens.dtype)
  for token in special:  # ascending: each opens its gap
    drawn += (drawn >= token).astype(tokens.dtype)
  share = jax.random.uniform(kind, (B, T))
  other = jnp.where(share < MASKED + RANDOM, drawn, tokens)
  shown = jnp.where(share < MASKED, jnp.asarray(mask_id, tokens.dtype), other)
  return jnp.where(chosen, shown, tokens), chosen
