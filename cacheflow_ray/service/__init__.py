"""gRPC between clients and the cluster: package `cacheflow.v1`."""
