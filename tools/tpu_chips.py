"""What a core of each TPU can do at most, for `tools/compile_for_tpu.py`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device as JAX sees it: half a chip of v2 to v4, else a whole one.

    Attributes:
        name: as in the name of a topology.
        teraflops: peak of matrix products in bfloat16, 1e12 a second. What
            float32 products run in by default, rounded to bfloat16, too.
        gigabytes: to and from HBM, 1e9 a second.
    """

    name: str
    teraflops: float
    gigabytes: float

    def seconds(self, flops, num_bytes):
        """The roofline: the time of what takes longer, alone."""
        return max(
            flops / self.teraflops / 1e12, num_bytes / self.gigabytes / 1e9
        )

    def bound(self, flops, num_bytes):
        """What takes longer: "compute" or "memory"."""
        compute = flops / self.teraflops / 1e12
        return (
            "compute"
            if self.seconds(flops, num_bytes) == compute
            else ("memory")
        )


# Per chip, from the pages "TPU v2" to "TPU v6e" of the Google Cloud
# documentation (cloud.google.com/tpu/docs/v3 and so on): 46, 123, 275, 197,
# 459, 918 TFLOP/s and 700, 900, 1228, 819, 2765, 1640 GB/s.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v2", 46 / 2, 700 / 2),
        Chip("v3", 123 / 2, 900 / 2),
        Chip("v4", 275 / 2, 1228 / 2),
        Chip("v5e", 197, 819),
        Chip("v5p", 459, 2765),
        Chip("v6e", 918, 1640),
    )
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology's name.

    Args:
        topology: such as "v3:4x4".

    Raises:
        ValueError: if it names none of CHIPS.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not shape:
        raise ValueError(
            f"--topology must be a chip ({', '.join(CHIPS)}) and a shape, "
            f"such as v3:4x4 or v4:2x2x1; got {topology!r}."
        )
    return CHIPS[name]
