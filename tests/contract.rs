//! The REST contract as a table of requests and golden replies, the same on both stores, near and far.
