"""Fused losses for weakly supervised medical image segmentation (ACCL)."""
