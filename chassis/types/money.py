"""Money between google.type.Money and integer minor units, in which everything chargeable is computed and stored."""

from google.type.money_pb2 import Money

from shop.chassis.v1.chassis_errors import InvalidRequest

#: Digits after the point, where ISO 4217 says other than two.
_EXPONENTS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
_NANOS = 1_000_000_000
#: What fits the database's bigint and JSON's safe integers alike.
_MOST_MINOR = 2**53 - 1


def money(minor: int, currency_code: str) -> Money:
    """Return `minor` units, such as cents, as a message; units and nanos agree in sign."""
    scale = _scale(currency_code)
    units, rest = divmod(abs(minor), scale)
    sign = -1 if minor < 0 else 1
    return Money(currency_code=currency_code, units=sign * units, nanos=sign * rest * (_NANOS // scale))


def text(minor: int, currency_code: str) -> str:
    """Return an amount for people who read messages: `12.34 USD`."""
    digits = _EXPONENTS.get(currency_code, 2)
    whole, rest = divmod(abs(minor), 10**digits)
    fraction = f".{rest:0{digits}d}" if digits else ""
    return f"{'-' if minor < 0 else ''}{whole}{fraction} {currency_code}"


def minor_units(amount: Money, field: str) -> int:
    """Return an amount in minor units; raises InvalidRequest naming `field` unless it is a whole number of them."""
    scale = _scale(amount.currency_code)
    if (amount.units > 0 > amount.nanos) or (amount.units < 0 < amount.nanos):
        raise InvalidRequest(field=field, problem="units and nanos must agree in sign")
    if abs(amount.nanos) >= _NANOS:
        raise InvalidRequest(field=field, problem="nanos must be less than one unit")
    nanos, rest = divmod(abs(amount.nanos) * scale, _NANOS)
    if rest:
        raise InvalidRequest(field=field, problem=f"must be a whole number of {amount.currency_code} minor units")
    minor = abs(amount.units) * scale + nanos
    if minor > _MOST_MINOR:
        raise InvalidRequest(field=field, problem="is larger than any amount of money here")
    return -minor if amount.units < 0 or amount.nanos < 0 else minor


def _scale(currency_code: str) -> int:
    return int(10 ** _EXPONENTS.get(currency_code, 2))
