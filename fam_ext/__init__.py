"""FAM Hires: training-free high-resolution generation with Stable Diffusion models by FAM Diffusion (CVPR 2025)."""

__version__ = "0.1.0"
