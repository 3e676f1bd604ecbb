"""Requests that TensorFlow Serving runs before a model is ready."""

import os

import tensorflow as tf

from official_lrm.memory.state import POSITION

#: Where TensorFlow Serving looks for them, in `assets.extra`.
WARMUP_FILE = "tf_serving_warmup_requests"

# Inputs that may not be zero. Lanes and tokens: one.
_VALUES = {"max_new_tokens": 2, "temperature": 1.0, "top_p": 1.0, "lengths": 1}


def write_warmup(folder, signatures, tokenizer=None):
    """Writes one request for each signature.

    A signature's first request optimizes its graph, which takes seconds; these
    take them before clients come. One that fails keeps the server from loading
    the model, so they are of one lane and one token. Memories are zeros, of a
    few bytes in a file whatever the spans. Each request that starts a session
    starts its own, as a server may send them at once; the last one ends all.

    Args:
        folder: `assets.extra` of a SavedModel.
        signatures: name -> concrete function.
        tokenizer: what text is made with, or None.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    file = os.path.join(folder, WARMUP_FILE)
    started = []
    with tf.io.TFRecordWriter(file) as writer:
        for name, function in signatures.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = name
            specs = inputs_of(function)
            for key, spec in specs.items():
                request.inputs[key].CopyFrom(_tensor(key, spec, tokenizer))
            if "session_id" in specs:
                ids = [len(started)] if POSITION in specs else started
                request.inputs["session_id"].CopyFrom(
                    tf.make_tensor_proto(ids, tf.int64)
                )
                started = sorted({*started, *ids})
            writer.write(log.SerializeToString())


def inputs_of(signature) -> dict:
    """Specs of a concrete function's inputs, by name."""
    args, kwargs = signature.structured_input_signature
    return {**{spec.name: spec for spec in args}, **kwargs}


def _tensor(name, spec, tokenizer):
    shape = [size or 1 for size in spec.shape]
    if spec.dtype == tf.string:
        return tf.make_tensor_proto([_text(tokenizer)], tf.string, shape)
    # One value stands for all.
    return tf.make_tensor_proto(
        _VALUES.get(name, 0), dtype=spec.dtype, shape=shape
    )


def _text(tokenizer):
    # Some ids are nothing by themselves: of a line's end, or a byte.
    texts = (tokenizer.decode([id_]) for id_ in range(tokenizer.vocab_size))
    return next(text for text in texts if tokenizer.encode(text).size)
