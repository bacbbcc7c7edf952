//! What a store promises, on both databases.
