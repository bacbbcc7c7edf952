//! A gateway that is killed under load loses no acknowledged change.
