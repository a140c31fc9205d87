"""Rounds numbers to float's maximum as a conversion to the nearest float does; protobuf-py rejects them instead.

Decimal forms of the maximum, such as 3.4028235e+38 which other languages print, are a little larger than it.
"""

import math

MAX_FLOAT = 3.4028234663852886e38
#: The maximum and half a step more: the first number whose nearest float would be infinite.
OUT_OF_RANGE = 3.4028235677973366e38


def round_to_float(number: float) -> float:
    """Return the maximum, with the number's sign, for a number that rounds to it; any other number as it is."""
    return math.copysign(MAX_FLOAT, number) if MAX_FLOAT < abs(number) < OUT_OF_RANGE else number
