"""``make bench``: how fast it is, always beside something else in the same run. No figure is asserted.

One file a benchmark; each has a ``NAME`` and ``run(effort)``, where an effort of 1 is the full length.
"""
