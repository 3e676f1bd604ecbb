"""Memories that stay in the server, by session."""

import uuid

import tensorflow as tf

from official_lrm.memory.state import POSITION
from official_lrm.serving import checks

# Position of a session that a request began to write and did not finish.
_TORN = -1

# TensorFlow raises FAILED_PRECONDITION where a variable is read that is not
# there, and its message holds the variable's name.
_UNKNOWN = (
    "session_id is unknown, was evicted or has ended; start the session again "
    "with position 0 (no variable of this name is meant to exist)"
)


class SessionStore(tf.Module):
    """The memories of some sessions, in resources that no checkpoint holds.

    A layer's memory is a ring in its slot: position p of a session is row
    p mod M_l, so that a step writes its own positions and moves no others. It
    is read oldest position first, as a client would send it.

    Requests do not wait for each other while the model runs. Each one reads its
    session, computes, and then, alone, compares and writes: only if its session
    is still as it was read. Of requests that race for one session one
    succeeds; one that fails or is cancelled leaves its session as it was.

    The state is lost when the server ends or loads another version.

    Args:
        model: a TransformerXLLanguageModel.
        num_slots: S, how many sessions are kept. One more takes the slot of
            the one that was used the longest time ago.

    Raises:
        ValueError: if `num_slots` is below 1.
    """

    def __init__(self, model, num_slots):
        super().__init__(name="session_store")
        if num_slots < 1:
            raise ValueError(
                f"sessions must be 1 or more, or 0 for none; got {num_slots}."
            )
        self.num_slots = num_slots
        self._specs = {
            name: spec
            for name, spec in model.memory_specs().items()
            if name != POSITION
        }
        # Two exports in one process do not share their sessions.
        self._prefix = f"official_lrm_{uuid.uuid4().hex}"
        self._ids = self._resource("ids", [num_slots], tf.int64)
        self._positions = self._resource("positions", [num_slots], tf.int32)
        # Grows with each write of any slot: it tells whether a slot has
        # changed, and which was used last. 0 or below = free; what was there
        # once is never given again.
        self._versions = self._resource("versions", [num_slots], tf.int64)
        self._rings = {
            name: self._resource(
                name,
                [num_slots * spec.shape[1], *spec.shape[2:]],
                tf.as_dtype(spec.dtype),
            )
            for name, spec in self._specs.items()
        }

    def run(self, session_id, position, tokens, function):
        """Runs a function of the memories of some sessions.

        Args:
            session_id: [B] int64, each at most once.
            position: [B] int32, that of each session; 0 starts or restarts it.
            tokens: [B, T], of as many lanes.
            function: takes the memories of B lanes and returns a dict of
                outputs and the memories after.

        Returns:
            The outputs, `session_id` and the new `position`.

        Raises:
            tf.errors.InvalidArgumentError: when run, if a position is not that
                of its session, another request has changed a session
                meanwhile, a session is named twice, or there are more of them
                than slots.
            tf.errors.FailedPreconditionError: when run, for an unknown or
                evicted session.
        """
        session_id, position = self._checked(session_id, position, tokens)
        found, slots, versions = self._alone(
            lambda: self._find(session_id, position)
        )
        outputs, memories = function(self._read(slots, position, [found]))
        # What fails, fails before anything is written.
        results = [*outputs.values(), *memories.values()]
        written = self._alone(
            lambda: self._commit(
                session_id, position, found, versions, memories
            ),
            results,
        )
        return checks.after(
            written,
            {
                **outputs,
                "session_id": session_id,
                POSITION: memories[POSITION],
            },
        )

    def end(self, session_id):
        """Forgets sessions.

        Args:
            session_id: [B] int64.

        Returns:
            [B] bool, whether each was known.
        """

        def forget():
            found, slots, _, _ = self._look_up(session_id)
            ended = tf.boolean_mask(slots, found)
            versions = self._versions.read()
            write = self._versions.assign(
                _set(versions, ended, -tf.gather(versions, ended))
            )
            with tf.control_dependencies([write]):
                return [tf.identity(found)]

        return self._alone(forget)[0]

    def _checked(self, session_id, position, tokens):
        inputs = {"session_id": session_id, "position": position}
        lanes = tf.shape(session_id)[0]
        assertions = [
            *checks.same_lanes(tokens, inputs),
            tf.debugging.assert_non_negative(
                position, "position must not be negative"
            ),
            tf.debugging.Assert(
                tf.size(tf.unique(session_id)[0]) == lanes,
                ["session_id must name each session once; got", session_id],
            ),
            tf.debugging.Assert(
                lanes <= self.num_slots,
                [
                    f"session_id must name at most the {self.num_slots} "
                    "sessions that are kept; got",
                    lanes,
                ],
            ),
        ]
        inputs = checks.after(assertions, inputs)
        return inputs["session_id"], inputs["position"]

    def _find(self, session_id, position):
        found, slots, versions, stored = self._look_up(session_id)
        goes_on = position > 0
        known = self._fail_if(goes_on & ~found)
        same = tf.debugging.Assert(
            tf.reduce_all(~goes_on | ~found | (position == stored)),
            [
                "position must be that of the session, or 0 to start again; "
                "sessions",
                session_id,
                "are at",
                stored,
                "; got",
                position,
            ],
        )
        with tf.control_dependencies([known, same]):
            return [tf.identity(x) for x in (found, slots, versions)]

    def _look_up(self, session_id):
        ids, versions = self._ids.read(), self._versions.read()
        positions = self._positions.read()
        kept = (versions > 0) & (positions != _TORN)
        match = (ids[None, :] == session_id[:, None]) & kept[None, :]
        slots = tf.argmax(match, axis=1, output_type=tf.int32)
        return (
            tf.reduce_any(match, axis=1),
            slots,
            tf.gather(versions, slots),
            tf.gather(positions, slots),
        )

    def _read(self, slots, position, after):
        # Not alone: who reads while another writes will not get to write.
        memories = {POSITION: position}
        with tf.control_dependencies(after):
            for name, spec in self._specs.items():
                rows = self._rows(slots, position, spec.shape[1], spec.shape[1])
                value = self._rings[name].gather(rows)
                memories[name] = tf.ensure_shape(value, spec.shape)
        return memories

    def _commit(self, session_id, position, found, versions, memories):
        still, slots, now, _ = self._look_up(session_id)
        goes_on = position > 0
        known = self._fail_if(goes_on & ~still)
        # A session that is started anew may be there or not.
        changed = still & (~found | (now != versions))
        unchanged = tf.debugging.Assert(
            ~tf.reduce_any(changed),
            [
                "position is no longer that of the session: another request "
                "has changed it; sessions",
                tf.boolean_mask(session_id, changed),
            ],
        )
        with tf.control_dependencies([known, unchanged]):
            slots = self._with_new_slots(slots, still)
        after = memories[POSITION]
        ids, versions = self._ids.read(), self._versions.read()
        positions = self._positions.read()
        torn = [
            self._ids.assign(_set(ids, slots, session_id)),
            self._positions.assign(
                _set(positions, slots, tf.fill(tf.shape(slots), _TORN))
            ),
            self._versions.assign(
                _set(
                    versions,
                    slots,
                    tf.fill(
                        tf.shape(slots), tf.reduce_max(tf.abs(versions)) + 1
                    ),
                )
            ),
        ]
        with tf.control_dependencies(torn):
            writes = [
                self._write(name, slots, after, after - position, memories)
                for name in self._specs
            ]
        with tf.control_dependencies(writes):
            whole = self._positions.assign(_set(positions, slots, after))
        with tf.control_dependencies([whole]):
            return [tf.identity(slots)]

    def _with_new_slots(self, slots, known):
        # The least recently used slots, but none that the request itself uses.
        versions = self._versions.read()
        used = tf.boolean_mask(slots, known)
        order = tf.argsort(
            _set(versions, used, tf.fill(tf.shape(used), tf.int64.max)),
            stable=True,
        )
        rank = tf.cumsum(tf.cast(~known, tf.int32), exclusive=True)
        return tf.where(known, slots, tf.gather(order, rank))

    def _write(self, name, slots, position, lengths, memories):
        span = self._specs[name].shape[1]
        # As many as the longest lane has new ones; what others have before
        # theirs is written as it was.
        count = tf.minimum(tf.maximum(tf.reduce_max(lengths), 0), span)
        # A position that has stopped at the last one counts tokens no more.
        stopped = tf.reduce_any(position == tf.int32.max)
        count = tf.where(stopped, span, count)
        rows = self._rows(slots, position, count, span)
        newest = memories[name][:, span - count :]
        shape = tf.concat([[-1], tf.shape(newest)[2:]], axis=0)
        return self._rings[name].scatter(
            tf.reshape(rows, [-1]), tf.reshape(newest, shape)
        )

    def _rows(self, slots, position, count, span):
        # [B, count]: rows of the positions before `position`.
        positions = position[:, None] - count + tf.range(count)[None, :]
        return slots[:, None] * span + positions % span

    def _fail_if(self, unknown):
        def fail():
            missing = tf.raw_ops.VarHandleOp(
                dtype=tf.int32, shape=[], shared_name=_UNKNOWN
            )
            return tf.raw_ops.ReadVariableOp(resource=missing, dtype=tf.int32)

        return tf.cond(tf.reduce_any(unknown), fail, lambda: tf.constant(0))

    def _alone(self, function, after=()):
        # While no other request is in a function of this store. A request that
        # fails lets go of the lock.
        with tf.control_dependencies(after):
            mutex = tf.raw_ops.MutexV2(shared_name=f"{self._prefix}_mutex")
            lock = tf.raw_ops.MutexLock(mutex=mutex)
        with tf.control_dependencies([lock]):
            results = function()
        with tf.control_dependencies(results):
            release = tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
        with tf.control_dependencies([release]):
            return [tf.identity(result) for result in results]

    def _resource(self, name, shape, dtype):
        return _Resource(f"{self._prefix}_{name}", shape, dtype)


class _Resource(tf.saved_model.experimental.TrackableResource):
    """Zeros that live in the runtime, not in a checkpoint."""

    def __init__(self, name, shape, dtype):
        super().__init__()
        self._name, self._shape, self._dtype = name, shape, dtype
        _ = self.resource_handle

    def read(self):
        return tf.ensure_shape(
            tf.raw_ops.ReadVariableOp(
                resource=self.resource_handle, dtype=self._dtype
            ),
            self._shape,
        )

    def assign(self, value):
        return tf.raw_ops.AssignVariableOp(
            resource=self.resource_handle, value=value
        )

    def gather(self, rows):
        return tf.raw_ops.ResourceGather(
            resource=self.resource_handle, indices=rows, dtype=self._dtype
        )

    def scatter(self, rows, values):
        return tf.raw_ops.ResourceScatterUpdate(
            resource=self.resource_handle, indices=rows, updates=values
        )

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(
            dtype=self._dtype, shape=self._shape, shared_name=self._name
        )

    def _initialize(self):
        self.assign(tf.zeros(self._shape, self._dtype))


def _set(values, indices, updates):
    return tf.tensor_scatter_nd_update(values, indices[:, None], updates)
