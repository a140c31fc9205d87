"""Patterns for 64-bit integers and durations, which JSON carries as strings and so without a range."""

#: Numbers of up to this many digits fit into 64 bits; open ranges exclude the few longer ones that do.
_DIGITS = 18


def integer_pattern(low: int | None, high: int | None) -> str:
    """Return a pattern for the canonical texts of the integers from `low` to `high`; None leaves an end open."""
    parts: list[str] = []
    if low is None or low < 0:
        nearest = 1 if high is None or high >= 0 else -high
        parts += [f"-{part}" for part in _magnitudes(nearest, None if low is None else -low)]
    if high is None or high >= 0:
        parts += _magnitudes(max(low or 0, 0), high)
    return f"^(?:{'|'.join(parts)})$"


def duration_pattern(low: int, high: int, *, inclusive: bool) -> str:
    """Return a pattern for the durations from `low` to `high` seconds, neither of them negative."""
    forms = [rf"(?:{'|'.join(_span(low, high - 1))})(?:\.[0-9]{{1,9}})?"] if high > low else []
    return f"^(?:{'|'.join([*forms, *([str(high)] if inclusive else [])])})s$"


def _magnitudes(low: int, high: int | None) -> list[str]:
    """Return patterns for the numbers low..high, none of them negative."""
    if high is not None and high < 10**_DIGITS:
        return _span(low, high)
    if low > 1:
        return _span(low, 10**_DIGITS - 1)
    return [*["0"][low:], f"[1-9][0-9]{{0,{_DIGITS - 1}}}"]


def _span(low: int, high: int) -> list[str]:
    """Split low..high into runs with one digit pattern each."""
    if low <= 1 and high >= 9:
        full = len(str(high + 1)) - 1
        shorter = [*["0"][low:], f"[1-9][0-9]{{0,{full - 1}}}" if full > 1 else "[1-9]"]
        return [*shorter, *(_span(10**full, high) if high >= 10**full else ())]
    stops = {high}
    count = 1
    while low <= (stop := _ending(low, count, "9")) < high:
        stops.add(stop)
        count += 1
    count = 1
    while low < (stop := _ending(high + 1, count, "0") - 1) <= high:
        stops.add(stop)
        count += 1
    parts = []
    for stop in sorted(stops):
        parts.append(_shape(str(low), str(stop)))
        low = stop + 1
    return parts


def _ending(number: int, count: int, digit: str) -> int:
    return int(str(number)[:-count] + digit * count)


def _shape(low: str, high: str) -> str:
    """Return the pattern of a run in which every digit varies independently."""
    text, free = "", 0
    for first, last in zip(low, high, strict=True):
        if first == last:
            text += first
        elif (first, last) == ("0", "9"):
            free += 1
        else:
            text += f"[{first}-{last}]"
    return text + ("[0-9]" if free == 1 else f"[0-9]{{{free}}}" if free else "")
