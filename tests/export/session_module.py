"""A toy that keeps sessions in the server, and what it must answer."""

import tensorflow as tf

VOCAB_SIZE = 23


class SessionModule(tf.Module):
    """Resident state of a toy: a session is a position and a sum.

    The sum is that of (token + 1) * (position + 1), so that order counts. Token
    v has the logit (sum + v) % 11; the token generated is (7 * sum + seed) % V.
    """

    def __init__(self):
        self._sessions = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=[-1, -1]
        )

    def signatures(self):
        tokens = tf.TensorSpec([None, None], tf.int32, "tokens")
        ids = tf.TensorSpec([None], tf.int64, "session_id")
        inputs = [tokens, ids, tf.TensorSpec([None], tf.int32, "position")]
        sampling = [
            tf.TensorSpec([None], dtype, name)
            for name, dtype in (
                ("max_new_tokens", tf.int32),
                ("temperature", tf.float32),
                ("top_k", tf.int32),
                ("top_p", tf.float32),
                ("seed", tf.int64),
                ("stop_token", tf.int32),
            )
        ]
        return {
            name: tf.function(function, autograph=False).get_concrete_function(
                *specs
            )
            for name, function, specs in (
                ("session_step", self._step, inputs),
                ("session_generate", self._generate, inputs + sampling),
                ("session_end", self._end, [ids]),
            )
        }

    def _state(self, session_id, position):
        stored = self._sessions.lookup(session_id)
        starts = position == 0
        gone = tf.reduce_any((stored[:, 0] < 0) & ~starts)
        # The one way to FAILED_PRECONDITION that TensorFlow's operations have.
        unset = tf.raw_ops.VarHandleOp(
            dtype=tf.int64, shape=[], shared_name="unknown or evicted session"
        )
        zero = tf.cond(
            gone,
            lambda: tf.raw_ops.ReadVariableOp(resource=unset, dtype=tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        agree = tf.reduce_all(starts | (stored[:, 0] == _long(position)))
        check = tf.debugging.Assert(
            (zero > 0) | agree,
            ["position must be that of the session; got", position],
        )
        with tf.control_dependencies([check]):
            total = tf.where(starts, tf.zeros_like(stored[:, 1]), stored[:, 1])
        return _long(position), total

    def _read(self, tokens, position, total):
        check = tf.debugging.Assert(
            tf.reduce_all((tokens >= 0) & (tokens < VOCAB_SIZE)),
            ["tokens must be below", VOCAB_SIZE],
        )
        with tf.control_dependencies([check]):
            length = tf.shape(tokens, out_type=tf.int64)[1]
        places = position[:, None] + tf.range(length) + 1
        totals = total[:, None] + tf.cumsum((_long(tokens) + 1) * places, 1)
        return position + length, totals

    def _keep(self, session_id, position, total):
        values = tf.stack([position, total], axis=1)
        return self._sessions.insert(session_id, values)

    def _step(self, tokens, session_id, position):
        position, total = self._state(session_id, position)
        position, totals = self._read(tokens, position, total)
        logits = (totals[:, :, None] + tf.range(VOCAB_SIZE, dtype="int64")) % 11
        with tf.control_dependencies(
            [self._keep(session_id, position, totals[:, -1])]
        ):
            return {
                "logits": tf.cast(logits, tf.float32),
                "session_id": tf.identity(session_id),
                "position": tf.cast(position, tf.int32),
            }

    def _generate(self, tokens, session_id, position, max_new_tokens, *rest):
        seed = rest[3]
        position, total = self._state(session_id, position)
        position, totals = self._read(tokens, position, total)
        count = tf.reduce_max(max_new_tokens)

        def draw(total):
            return tf.cast((7 * total + seed) % VOCAB_SIZE, tf.int32)[:, None]

        def go_on(generated, position, total):
            position, totals = self._read(generated[:, -1:], position, total)
            total = totals[:, -1]
            generated = tf.concat([generated, draw(total)], axis=1)
            return generated, position, total

        total = totals[:, -1]
        generated, position, total = tf.while_loop(
            lambda generated, *_: tf.shape(generated)[1] < count,
            go_on,
            (draw(total), position, total),
            shape_invariants=(
                tf.TensorShape([None, None]),
                tf.TensorShape([None]),
                tf.TensorShape([None]),
            ),
        )
        with tf.control_dependencies([self._keep(session_id, position, total)]):
            return {
                "generated": generated[:, :count],
                "generated_lengths": tf.fill(tf.shape(position), count),
                "session_id": tf.identity(session_id),
                "position": tf.cast(position, tf.int32),
            }

    def _end(self, session_id):
        ended = self._sessions.lookup(session_id)[:, 0] >= 0
        with tf.control_dependencies([ended]):
            removal = self._sessions.remove(session_id)
        with tf.control_dependencies([removal]):
            return {"ended": tf.identity(ended)}


def _long(values):
    return tf.cast(values, tf.int64)


class Toy:
    """What a session of SessionModule answers, in Python."""

    def __init__(self):
        self.position = self.total = 0

    def read(self, tokens):
        logits = []
        for token in tokens:
            self.position += 1
            self.total += (token + 1) * self.position
            logits.append([(self.total + v) % 11 for v in range(23)])
        return [logits]

    def write(self, tokens, count, seed=0):
        found = []
        for _ in range(count):
            self.read(tokens)
            tokens = [(7 * self.total + seed) % 23]
            found += tokens
        return found
