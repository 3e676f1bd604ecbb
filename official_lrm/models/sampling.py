"""Drawing the next token.

All functions work on lanes at once, with the settings of each lane given per
lane, and are functions of their arguments alone: the noise of a token depends
on (seed, position), so that it does not matter how a generation is cut into
calls.
"""

from keras import ops

_GOLDEN = 0x9E3779B1

# Below it a division by the temperature may overflow; it is greedy anyway.
_SMALLEST_TEMPERATURE = 1e-30


def sample_tokens(logits, temperature, top_k, top_p, seed_words, position):
    """Draws one token a lane.

    Temperature divides the logits first; then only the `top_k` likeliest
    tokens are kept; then of these the fewest that hold the probability
    `top_p`. The draw is the Gumbel-max trick.

    Args:
        logits: [B, V] float32, unnormalised or log-probabilities.
        temperature: [B] float32; 0 = the likeliest token.
        top_k: [B] int32; 0 = all tokens.
        top_p: [B] float32 in (0, 1]; 1 = all tokens.
        seed_words: [B, 2] uint32, the two halves of a 64-bit seed.
        position: [B] int32, tokens seen before the one to draw.

    Returns:
        [B] int32.
    """
    logits = ops.cast(logits, "float32")
    greedy = temperature < _SMALLEST_TEMPERATURE
    temperature = ops.where(greedy, 1.0, temperature)

    def noisy(logits, likeliest, tokens):
        # The likeliest is at 0 whatever the temperature: no overflow can hide
        # it.
        scaled = (logits - likeliest) / temperature[:, None]
        noise = gumbel_noise(seed_words, position, tokens)
        return scaled, ops.where(greedy[:, None], scaled, scaled + noise)

    def from_all():
        tokens = ops.arange(logits.shape[-1], dtype="int32")[None, :]
        likeliest = ops.max(logits, axis=-1, keepdims=True)
        _, values = noisy(logits, likeliest, tokens)
        return ops.cast(ops.argmax(values, axis=-1), "int32")

    def from_some():
        # Sorted by rank, the two filters are prefixes.
        ranked, tokens = ops.top_k(logits, logits.shape[-1])
        scaled, values = noisy(ranked, ranked[:, :1], tokens)
        kept = _kept(scaled, top_k, top_p)
        choice = ops.argmax(ops.where(kept, values, -1e30), axis=-1)
        choice = ops.cast(choice, "int32")[:, None]
        drawn = ops.take_along_axis(tokens, choice, axis=-1)[:, 0]
        return ops.cast(drawn, "int32")

    # To sort 267,735 words takes as long as many layers.
    filters = ops.any(ops.logical_or(top_k > 0, top_p < 1))
    return ops.cond(filters, from_some, from_all)


def _kept(scaled, top_k, top_p):
    # [B, V] bool, by rank: what the two filters leave.
    vocab_size = scaled.shape[-1]
    rank = ops.arange(vocab_size, dtype="int32")[None, :]
    limit = ops.where(top_k > 0, top_k, vocab_size)[:, None]
    kept = rank < limit
    probabilities = ops.softmax(ops.where(kept, scaled, -1e30))
    before = ops.cumsum(probabilities, axis=-1) - probabilities
    # top_p 1 must keep all, whatever the sum's rounding.
    kept = ops.logical_and(
        kept, ops.logical_or(before < top_p[:, None], top_p[:, None] >= 1)
    )
    return ops.logical_or(kept, rank == 0)  # The likeliest always stays.


def gumbel_noise(seed_words, position, tokens):
    """Standard Gumbel noise, a function of (seed, position, token).

    The uniform numbers are a counter-based hash: MurmurHash3's 32-bit
    finaliser, chained over the two halves of the seed, the position and the
    token. It needs no generator state and gives the same on every backend.

    Args:
        seed_words: [B, 2] uint32.
        position: [B] int32.
        tokens: [B, V] int32.

    Returns:
        [B, V] float32.
    """
    lane = _mix(seed_words[:, 0])
    lane = _mix(ops.bitwise_xor(lane, seed_words[:, 1]))
    lane = _mix(ops.bitwise_xor(lane, ops.cast(position, "uint32")))
    counter = ops.cast(tokens, "uint32") * _constant(_GOLDEN)
    bits = _mix(_mix(counter + lane[:, None]))
    # 23 bits and a half: float32 holds every value, and none is 0 or 1.
    bits = ops.cast(ops.right_shift(bits, _constant(9)), "float32")
    uniform = (bits + 0.5) * 2.0**-23
    return -ops.log(-ops.log(uniform))


def _mix(bits):
    # MurmurHash3's fmix32 (public domain, A. Appleby).
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, _constant(shift)))
        bits = bits * _constant(factor)
    return ops.bitwise_xor(bits, ops.right_shift(bits, _constant(16)))


def _constant(value):
    return ops.convert_to_tensor(value, dtype="uint32")
