"""Calibration: the emulated cell driven as the measurements were, and both side by side.

:mod:`rfsim` judges by the real OAI scheduler, :mod:`paper` by Tables II, III and IV of the MUCB1 paper. The
parameters that were fitted are in :mod:`agents.emulator.spec`, each with its unit and the table.
"""
