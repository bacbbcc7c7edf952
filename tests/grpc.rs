//! The gRPC face, seen by a client that knows nothing but reflection.
