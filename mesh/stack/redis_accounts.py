"""The accounts of the services at the Redis servers of a stack, derived from the contract.

At the bus a service has two: one publishes to its own topics, and the other consumes those that name it as a consumer.
Redis 6.2 cannot allow a command on some keys of an account alone, and an account with both rights could publish
to what it consumes.
"""

from collections.abc import Callable

from chassis.events.bus import owner_of
from mesh.stack.servers.redis import Account
from shop.services import SERVICES
from shop.topics import TOPICS

_PUBLISH = ("discard", "exec", "info", "multi", "xadd", "xinfo", "xlen", "xpending", "xtrim")
#: None of them changes the entries of a stream: `getex`, `getdel` and `setnx` fail on streams.
_CONSUME = ("eval", "get", "getdel", "getex", "setnx", "xack", "xgroup|create", "xinfo", "xread", "xreadgroup")
_READ = ("xinfo", "xrange")
_CACHE = (
    *("del", "eval", "evalsha", "expire", "get", "hdel", "hexists", "hget", "hlen", "hrandfield", "hset"),
    *("pexpire", "pttl", "script|load", "set", "time", "ttl", "zadd", "zcard", "zrange", "zremrangebyscore"),
)

#: Returns the password of an account by its name.
Password = Callable[[str], str]
#: Each of the functions below.
MakeAccount = Callable[[str, Password], Account]


def publisher(service: str, password: Password) -> Account:
    """Return the account that publishes to the topics of a service."""
    name = f"{service}.publisher"
    keys = tuple(_stream(topic) for topic in TOPICS if owner_of(topic) == service)
    return Account(name=name, password=password(name), keys=keys, commands=_PUBLISH)


def consumer(service: str, password: Password) -> Account:
    """Return the account that consumes the topics whose consumer a service is."""
    name = f"{service}.consumer"
    keys = tuple(_stream(topic.name) for topic in TOPICS.values() if service in topic.consumers)
    return Account(name=name, password=password(name), keys=(*keys, f"{{bus}}:lease:{service}"), commands=_CONSUME)


def reader(name: str, password: Password) -> Account:
    """Return an account that reads the events of all topics and changes nothing, for `shopmesh verify`."""
    return Account(name=name, password=password(name), keys=tuple(map(_stream, TOPICS)), commands=_READ)


def cache(service: str, password: Password) -> Account:
    """Return the account of a service's cached messages, and of the counters of calls to it."""
    name = f"{service}.cache"
    counters = tuple(f"rate:/{one.name}/*" for one in SERVICES.values() if one.workload == service)
    return Account(name=name, password=password(name), keys=(f"{{{service}:*", *counters), commands=_CACHE)


def _stream(topic: str) -> str:
    return f"{{bus}}:{topic}"
