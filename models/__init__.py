"""A model's way: source -> ONNX -> tuned -> verified -> store."""
