"""Scorers for other programs: ONNX, OpenVINO, int8, the Hugging Face hub, pyiqa, torchmetrics, losses.

Nothing here is imported before it is asked for: every part needs a library of its own.
"""
