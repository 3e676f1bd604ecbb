"""The most memory that a process has held."""


def peak_memory() -> float:
    """Of this process so far, resident, in MiB.

    Not getrusage's ru_maxrss: that begins at what the process that started
    this one held.
    """
    with open("/proc/self/status", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no line VmHWM.")
