"""The same index in other engines: Milvus, neutral files, and the query side by onnxruntime."""
