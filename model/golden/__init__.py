"""Golden tensors: how the published weights' parts are proven without the weights. `livemimic verify` and the tests run the same cases."""
