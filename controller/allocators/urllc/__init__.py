"""URLLC tasks: what to cache, offload and transmit, with a twin that knows how far its rates may be off."""
