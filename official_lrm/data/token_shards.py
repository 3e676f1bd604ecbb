"""The tokens of a text in files that a TensorFlow graph reads by itself.

A memory-mapped array is read by Python, so only in the process that mapped
it. The host of a TPU pod slice or the worker of a tf.data service runs nothing
but the graph of a dataset: there the tokens are read from shards, in a folder
that all of them see under the same name (a network file system, gs://).

A folder of shards holds `tokens-00007-of-00096.bin` and so on, little-endian
ids. Its name has the hash of them, so that no run reads another text's, and it
may be deleted between runs: what is missing is written again.
"""

import dataclasses
import hashlib
import os

import numpy as np

from official_lrm.data.token_array import TokenArray
from official_lrm.data.whole_files import written_whole
from official_lrm.progress import ProgressLine

# A whole shard is read for some thousand tokens of a lane: greater ones are
# more to read and to hold, smaller ones more files.
_SHARD_BYTES = 2**18


@dataclasses.dataclass(frozen=True)
class TokenShards:
    """Where the tokens of a text are, and how to read them in a graph.

    Attributes:
        folder: str, of the shards.
        dtype: str, "uint8", "uint16" or "int32".
        num_tokens: int N.
        shard_tokens: int W, tokens of a shard; the last one has fewer.
    """

    folder: str
    dtype: str
    num_tokens: int
    shard_tokens: int

    def file_name(self, shard):
        """Returns the path of a shard.

        Args:
            shard: int from 0 on.
        """
        return f"{self._before_number}{shard:05d}{self._after_number}"

    @property
    def _before_number(self):
        return os.path.join(self.folder, "tokens-")

    @property
    def _after_number(self):
        return f"-of-{-(-self.num_tokens // self.shard_tokens):05d}.bin"

    def take(self, positions):
        """Returns tokens, reading only the shards that hold them.

        TensorFlow operations only: it works in any process that sees the
        folder. The n shards, as they are read and as they are decoded, are
        in memory until the tokens are taken.

        Args:
            positions: int64 tensor of any shape, from 0 to N - 1.

        Returns:
            int32 tensor of the same shape.

        Raises:
            tf.errors.NotFoundError: when it runs and a shard is missing.
            tf.errors.InvalidArgumentError: when it runs and a shard has
                another length than it was written with.
        """
        import tensorflow as tf

        itemsize = np.dtype(self.dtype).itemsize
        flat = tf.reshape(positions, [-1])
        shards, slots = tf.unique(flat // self.shard_tokens, tf.int64)
        contents = tf.map_fn(
            lambda shard: self._read(tf, shard),
            shards,
            fn_output_signature=tf.TensorSpec([], tf.string),
        )
        # Rows [n, W]; that of the text's last shard is padded.
        rows = tf.io.decode_raw(
            contents, self.dtype, fixed_length=self.shard_tokens * itemsize
        )
        flat = slots * self.shard_tokens + flat % self.shard_tokens
        tokens = tf.gather(tf.reshape(rows, [-1]), flat)
        return tf.reshape(tf.cast(tokens, tf.int32), tf.shape(positions))

    def _read(self, tf, shard):
        name = tf.strings.join(
            [
                self._before_number,
                tf.strings.as_string(shard, width=5, fill="0"),
                self._after_number,
            ]
        )
        content = tf.io.read_file(name)
        rest = self.num_tokens - shard * self.shard_tokens
        tokens = tf.minimum(rest, self.shard_tokens)
        expected = tokens * np.dtype(self.dtype).itemsize
        length = tf.cast(tf.strings.length(content), tf.int64)
        message = tf.strings.join(
            [
                name,
                " must have ",
                tf.strings.as_string(expected),
                " bytes; it has ",
                tf.strings.as_string(length),
                ". Delete its folder, and a new run writes it again",
            ]
        )
        check = tf.debugging.Assert(tf.equal(length, expected), [message])
        # None where it runs at once.
        with tf.control_dependencies([check] if check is not None else []):
            return tf.identity(content)


def write_shards(tokens, parent, name, shard_bytes=_SHARD_BYTES):
    """Writes the shards of a text that are not there.

    Several processes may write the same ones at the same time: a file gets its
    name when it is complete, and it is the same whoever wrote it.

    Args:
        tokens: integers [N], in memory or memory-mapped, as of the lanes.
        parent: folder for the folder of the shards, of any file system that
            TensorFlow has.
        name: what the folder's name begins with.
        shard_bytes: int, bytes of every shard but the last.

    Returns:
        TokenShards.

    Raises:
        ValueError: `tokens` are no token ids.
        OSError: the folder cannot be written.
    """
    import tensorflow as tf

    gfile = tf.io.gfile
    tokens = TokenArray(tokens).values
    dtype = tokens.dtype.newbyteorder("<")
    shard_tokens = shard_bytes // dtype.itemsize

    def content(shard):
        start = shard * shard_tokens
        piece = tokens[start : start + shard_tokens]
        return np.ascontiguousarray(piece, dtype).tobytes()

    count = -(-len(tokens) // shard_tokens)
    digest = hashlib.sha256(f"{dtype.name} {shard_tokens} ".encode())
    for shard in range(count):
        digest.update(content(shard))
    folder = os.path.join(parent, f"{name}-{digest.hexdigest()[:24]}")
    shards = TokenShards(folder, dtype.name, len(tokens), shard_tokens)
    progress = ProgressLine(f"write shards of {name}", count)
    try:
        gfile.makedirs(folder)
        present = set(gfile.listdir(folder))
        for shard in range(count):
            path = shards.file_name(shard)
            if os.path.basename(path) not in present:
                with (
                    written_whole(path, gfile) as temporary,
                    gfile.GFile(temporary, "wb") as stream,
                ):
                    stream.write(content(shard))
                progress.update(shard + 1)
    except tf.errors.OpError as error:
        raise OSError(
            f"shards of the tokens cannot be written to {parent}: "
            f"{error.message}; task.corpus.shard_dir names another folder"
        ) from error
    finally:
        progress.close()
    return shards
