"""Messages of package `cacheflow.v1`, made by `make proto`; what they mean is written in proto/cacheflow/v1."""
