"""The ``urllc`` service's experiments: drops, and the figures of its paper."""
