"""What a memory keeps of a position, and in which dtype.

The content and the numbers that a layer computes with are one matter, how they
are kept between two calls another: a `MemoryFormat` says both.
"""

from keras import ops

CONTENTS = ("hidden", "key_value")

#: Dtypes that memories can be kept in; int8 with one scale per position.
DTYPES = ("float64", "float32", "bfloat16", "float16", "int8")

_INT8_MAX = 127


class MemoryFormat:
    """The slots of a memory: their parts, shapes and dtype.

    - `hidden`: a layer's input at a position, `memory_03` [B, M, D]. Keys and
      values are projected from it in each call.
    - `key_value`: its keys and values, `key_03` and `value_03` [B, M, N, H],
      biases not added. Nothing is projected again; for inference.

    In int8, a position's numbers are `scale * integer`, -127 to 127, with one
    float32 scale each: `memory_03_scale` [B, M]. The scale is the largest
    absolute value / 127, rounded to bfloat16: then encoding what was decoded
    gives the same integers and the same scale, bit for bit.

    Args:
        content: "hidden" or "key_value".
        hidden_size: D.
        num_heads: N.
        head_size: H.
        compute_dtype: what layers compute with.
        dtype: what memories are kept in; None = the compute dtype.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(
        self,
        content,
        hidden_size,
        num_heads=None,
        head_size=None,
        compute_dtype="float32",
        dtype=None,
    ):
        if content not in CONTENTS:
            raise ValueError(
                f"memory_format must be one of {', '.join(CONTENTS)}; got "
                f"{content!r}."
            )
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(
                f"memory_dtype must be one of {', '.join(DTYPES)}; got "
                f"{dtype!r}."
            )
        self.content = content
        self.compute_dtype = compute_dtype
        self.dtype = dtype or compute_dtype
        #: Part of a slot -> its shape.
        self.parts = {"memory": (hidden_size,)}
        if content == "key_value":
            heads = (num_heads, head_size)
            self.parts = {"key": heads, "value": heads}

    @property
    def is_lossless(self) -> bool:
        """Whether memories are kept in the dtype that layers compute with."""
        return self.dtype == self.compute_dtype

    def slots(self, layer: int) -> dict:
        """Shape of one slot and dtype, by name of a layer's tensors."""
        slots = {}
        for part, shape in self.parts.items():
            name = memory_name(layer, part)
            slots[name] = (shape, self.dtype)
            if self.dtype == "int8":
                slots[f"{name}_scale"] = ((), "float32")
        return slots

    def encode(self, layer: int, parts: dict) -> dict:
        """What is kept of some positions.

        Args:
            layer: the layer's index.
            parts: part -> [B, T, ...] in the compute dtype.

        Returns:
            name -> [B, T, ...].
        """
        tensors = {}
        for part, value in parts.items():
            name = memory_name(layer, part)
            if self.dtype == "int8":
                tensors[name], tensors[f"{name}_scale"] = quantize(value)
            else:
                tensors[name] = ops.cast(value, self.dtype)
        return tensors

    def decode(self, layer: int, tensors: dict) -> dict:
        """Inverse of `encode`, but for what a smaller dtype has lost.

        Args:
            layer: the layer's index.
            tensors: a dict that holds the layer's tensors.

        Returns:
            part -> [B, M, ...] in the compute dtype.
        """
        parts = {}
        for part in self.parts:
            name = memory_name(layer, part)
            value = tensors[name]
            if self.dtype == "int8":
                value = dequantize(value, tensors[f"{name}_scale"])
            parts[part] = ops.cast(value, self.compute_dtype)
        return parts

    def rounded(self, parts: dict) -> dict:
        """What is left of some positions once they were kept.

        Args:
            parts: part -> [B, T, ...] in the compute dtype.

        Returns:
            The same, with what a smaller dtype loses lost.
        """
        if self.is_lossless:
            return parts
        return self.decode(0, self.encode(0, parts))


def memory_name(layer: int, part: str = "memory") -> str:
    """Name of a layer's memory: `memory_name(3) == "memory_03"`."""
    return f"{part}_{layer:02d}"


def quantize(values):
    """8-bit integers and a scale for each position.

    `[[3.0, -254.0]] -> [[2, -127]], [2.0]`

    Args:
        values: [B, T, ...] float.

    Returns:
        integers: [B, T, ...] int8, from -127 to 127.
        scales: [B, T] float32, 0 for a position of zeros.
    """
    values = ops.cast(values, "float32")
    axes = tuple(range(2, len(values.shape)))
    scales = ops.max(ops.abs(values), axis=axes, keepdims=True, initial=0)
    scales = scales / _INT8_MAX
    # With 8 bits, 127 * scale is exact, and dividing it by 127 gives it back.
    scales = ops.cast(ops.cast(scales, "bfloat16"), "float32")
    divisors = ops.where(scales > 0, scales, 1.0)
    integers = ops.round(values / divisors)
    integers = ops.clip(integers, -_INT8_MAX, _INT8_MAX)
    return ops.cast(integers, "int8"), ops.squeeze(scales, axes)


def dequantize(integers, scales):
    """Inverse of `quantize`: [B, T, ...] float32."""
    for _ in range(len(integers.shape) - 2):
        scales = scales[..., None]
    return ops.cast(integers, "float32") * scales


def split_name(name: str):
    """Part, layer and whether it is a scale, of a memory's name; or None.

    `split_name("key_03_scale") == ("key", 3, True)`.
    """
    pieces = name.split("_")
    is_scale = len(pieces) == 3 and pieces[2] == "scale"
    if is_scale:
        pieces = pieces[:2]
    if len(pieces) != 2 or not pieces[1].isdecimal():
        return None
    if pieces[0] not in ("memory", "key", "value"):
        return None
    return pieces[0], int(pieces[1]), is_scale
