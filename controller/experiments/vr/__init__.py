"""The ``vr`` service's experiments: instances, and the figures of its paper."""
