//! Accounts and credentials over the wire: what is revoked is refused at once, on every gateway.
