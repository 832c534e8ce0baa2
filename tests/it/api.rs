//! The service over its real gRPC surface.

mod naming;
