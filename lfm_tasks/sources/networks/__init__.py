"""Recorders of networks: ONNX models and PyTorch networks that are run here."""
