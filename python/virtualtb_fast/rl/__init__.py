"""Reinforcement learning as pure functions on tensors; no environment inside."""
