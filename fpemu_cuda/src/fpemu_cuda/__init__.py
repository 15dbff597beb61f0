"""Compiled backends of fpemu: `native` on the processor, `cuda` on NVIDIA GPUs; one core."""
