"""Triton kernels, each beside its torch reference; import them as `kernels.yuv`, `kernels.window_attention` and so on.

Importing the package must stay free of side effects and of triton and torch: Hugging Face's transformers probes
whatever distribution owns the name `kernels`, and `__version__` keeps that probe quiet when it meets a plain checkout.
"""

__version__ = "0.0.0"
