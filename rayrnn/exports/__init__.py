"""A trained network as one file that other programs read: ONNX, torch.export, or plain weights."""
