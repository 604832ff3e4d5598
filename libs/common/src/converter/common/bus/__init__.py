"""The one package that knows nats-py: a connection to JetStream, in the few verbs that this system uses.

    EventBusUnavailable     the server cannot be reached or does not answer in time; a write may or may not be stored
    WrongSequence           a conditional write lost: somebody wrote before
    BusRefused              the server said no for another reason (its code and words)
    └── BusFull             there is no room for the message

JetStream's API is spoken in its own JSON (`$JS.API.…`), so a feature of the server needs no support by the library.
`connection` is the connection, `healing` restores it when the library does not, `messages` is what comes over it,
`feed` how a consumer's messages do.
"""

from converter.common.bus.connection import Bus
from converter.common.bus.errors import NOT_FOUND, BusFull, BusRefused, EventBusUnavailable, WrongSequence
from converter.common.bus.feed import Feed
from converter.common.bus.messages import Delivery, Followed, StoredMessage

__all__ = [
    "NOT_FOUND",
    "Bus",
    "BusFull",
    "BusRefused",
    "Delivery",
    "EventBusUnavailable",
    "Feed",
    "Followed",
    "StoredMessage",
    "WrongSequence",
]
