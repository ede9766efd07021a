"""The avatar model: configs, networks, masks and tasks, samplers, the rolling window and the checkpoints.

Knows tensors, not sockets. `model.presets` says what other packages use: one interface, whichever model runs.
"""
