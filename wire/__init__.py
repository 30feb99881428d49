"""Every message that crosses a process boundary, and the version that both ends must speak.

The ``*_pb2*.py`` stubs are generated from the ``*.proto`` beside them by ``make stubs`` and committed;
``make check-stubs`` fails where they are stale.
"""

PROTOCOL_VERSION = 1
"""Sent in the first message of every link; a peer with another version is refused."""

MAX_RAN_MESSAGE_BYTES = 32 * 1024
"""Of the RAN link, from a gNB: a full MacReport of 64 UEs is below 16 KiB."""

MAX_GNB_MESSAGE_BYTES = 64 * 1024
"""Of the RAN link, to a gNB; ``MAX_MESSAGE_SIZE`` of the C agent."""
OPERATOR_ADDRESS = "127.0.0.1:50063"
"""Where a controller has its operator API, and its clients look for it, unless they are told otherwise."""
PAGE_ADDRESS = "127.0.0.1:50064"
"""Where a controller has its page, unless it is told otherwise."""
