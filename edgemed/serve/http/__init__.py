"""HTTP and gRPC: the Open Inference Protocol, STOW-RS, metrics, health, the page."""
