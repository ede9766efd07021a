"""EchoMimicV3 1.3B with the published weights: the modules beside the shared transformer that its two variants need."""
