"""What computes a bundle's logits: torch, OpenVINO or ONNX Runtime, and the choice among them."""
