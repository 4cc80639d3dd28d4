"""Steps of a network that torch takes in more passes over memory than they need, compiled for the CPU that trains."""

from .operators import concat_upsampled, conv_norm_relu, max_pool, norm_relu, upsample

__all__ = ["concat_upsampled", "conv_norm_relu", "max_pool", "norm_relu", "upsample"]
