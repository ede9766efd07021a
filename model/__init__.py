"""The avatar model: configs, networks, masks and tasks, samplers, the rolling window and the checkpoints.

Knows tensors, not sockets. `model.pipeline.AvatarPipeline` is the one class other packages use.
"""
